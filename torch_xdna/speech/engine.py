"""What a server or a worker asks of a model: a batch of windows in, segments and the device out.

Nothing here imports torch. `WhisperEngine` (whisper_engine.py) is an Engine on this package's Transcriber; whoever
calls `run` calls it from one thread, so an engine needs no locks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from torch_xdna.errors import XdnaError
from torch_xdna.speech.heard import Heard
from torch_xdna.speech.subtitles import Segment
from torch_xdna.speech.windows import Window

EAGER = "cpu"  # what is said of work that no device of ours did


@dataclass(frozen=True)
class Wanted:
    """What the model is to do; windows of requests that ask the same may share a batch. `language`: a code, None to
    detect it; `prompt`: text that is taken as said before every window; `temperature`: 0 takes the likeliest words,
    more draws them by chance; `words`: times of words too."""

    language: str | None = None
    task: str = "transcribe"
    prompt: str = ""
    temperature: float = 0.0
    words: bool = False


@dataclass(frozen=True)
class Ran:
    """`found`: per window its segments or why there are none; `device`: what computed the encoder, `EAGER` beside it
    where a device failed and part of it was computed again."""

    found: list[list[Segment] | XdnaError]
    devices: tuple[str, ...]


class Engine(Protocol):
    """`name`: for clients; `rate`: samples per second; `languages`: codes."""

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def rate(self) -> int: ...
    @property
    def is_multilingual(self) -> bool: ...
    @property
    def languages(self) -> Sequence[str]: ...
    @property
    def takes_prompts(self) -> bool: ...
    def language(self, name: str) -> str | None:
        """A language's code by code or name; None if the model does not know it."""

    def windows(self, blocks: Iterable[np.ndarray]) -> Iterator[Window]:
        """Cuts a stream of samples at `rate` into what `run` takes; on any thread, several streams at a time."""

    def run(self, windows: Sequence[Window], heard: Sequence[Heard], asked: Wanted) -> Ran:
        """Transcribe a batch; `heard` is brought up to date. May raise anything: the queue tells the clients."""

    def failures(self) -> dict[str, int]:
        """Why a device's work was computed on the CPU instead, a sentence each -> in how many calls."""
