"""What writes the words: hidden states of the encoder in, tokens out. Two ways, with one face:

`hf` is Hugging Face's `generate`, which needs nothing else; `ct2` is CTranslate2 (extra `fast`), in int8 where the CPU
gains from it and several times as fast. `conversion` makes CTranslate2's files from a checkpoint, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

NAMES = ("auto", "ctranslate2", "hf")


@dataclass(frozen=True)
class Asked:
    """What a decoder shall do with some windows.

    `languages`: one code per window, None for an English-only model; `task`: transcribe or translate; `previous`:
    tokens that stand before the start (<|startofprev|>, hotwords, prompt), or none; `beams`: 1 is greedy;
    `temperature`: above 0 words are drawn by chance; `word_times`: also when every token was said; `frames`: per
    window how many of the encoder's frames are sound, not padding.
    """

    languages: list[str] | None = None
    task: str = "transcribe"
    previous: tuple[int, ...] = ()
    beams: int = 1
    temperature: float = 0.0
    word_times: bool = False
    frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class Said:
    """Token ids of one window (the prompt may be among them, up to its start token), and where asked for the first
    and last frame (of the encoder, 0.02 s each) of every token that is text."""

    ids: list[int]
    times: list[tuple[float, float]] | None = None


class Decoder(Protocol):
    """`hidden`: (windows, frames, width), a tensor or an array. Not for several threads at once."""

    name: str

    def languages(self, hidden: Any) -> list[dict[str, float]]:
        """How probable each language is, for every window."""

    def generate(self, hidden: Any, asked: Asked) -> list[Said]:
        """One per window. Raises XdnaError for what can't be done."""
