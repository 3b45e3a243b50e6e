"""A small Whisper that was trained for this package, and clips to run it on. All of it is synthetic speech.

    from torch_xdna import speech
    pipeline("automatic-speech-recognition", model=speech.CHECKPOINT)(speech.clips()[0].path)

`training/` holds what made them, and the results.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent

CHECKPOINT = str(_HERE / "checkpoint")  # a folder in Hugging Face's format
_CLIPS = _HERE / "clips"


@dataclass(frozen=True)
class Clip:
    """A spoken sentence that training never saw. `voice`: espeak-ng's name for it; `voice_held_out`: whether
    training never heard that voice either; `noise_db`: signal to noise ratio, None without added noise."""

    path: str
    text: str
    voice: str
    voice_held_out: bool
    noise_db: float | None
    seconds: float


@functools.cache
def clips() -> tuple[Clip, ...]:
    """The clips that ship with the package, in the order of their file names."""
    records = json.loads((_CLIPS / "manifest.json").read_text(encoding="utf-8"))
    return tuple(Clip(path=str(_CLIPS / record.pop("file")), **record) for record in records)
