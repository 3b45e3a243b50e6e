"""An engine whose answers are known: it hears the pitch of a tone, and waits, fails or falls back as told."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import soundfile

from torch_xdna.speech.engine import Ran, Wanted
from torch_xdna.speech.heard import Heard
from torch_xdna.speech.subtitles import Segment, Word
from torch_xdna.speech.windows import Window
from torch_xdna.speech.windows import windows as cut

RATE = 16_000


def tone(hertz: int, seconds: float = 1.0) -> bytes:
    """A recording that `Scripted` transcribes as the number of `hertz`, once per window."""
    samples = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


class Scripted:
    """`gate`: closed, runs wait at it; `fails`: raised by runs that hold a tone of that pitch; `falls_back`: every run
    counts as one whose device failed midway."""

    name, device, rate, window_seconds = "toy", "npu", RATE, 10.0
    is_multilingual, languages, takes_prompts = True, ("en", "es"), True

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.fails: dict[int, Exception] = {}
        self.falls_back = False
        self.batches: list[tuple[list[int], Wanted]] = []
        self.running = threading.Event()

    def language(self, name: str) -> str | None:
        return name if name in self.languages else None

    def failures(self) -> dict[str, int]:
        return {"region 0 runs eager on the CPU, because it is scripted": 1} if self.falls_back else {}

    def windows(self, blocks: Iterable[np.ndarray]) -> Iterator[Window]:
        return cut(blocks, self.rate, self.window_seconds)

    def run(self, windows: Sequence[Window], heard: Sequence[Heard], asked: Wanted) -> Ran:
        pitches = [_pitch(window) for window in windows]
        self.batches.append((pitches, asked))
        self.running.set()
        assert self.gate.wait(30)
        for pitch in pitches:
            if pitch in self.fails:
                raise self.fails[pitch]
        for one in heard:
            one.hear({"en": 0.9, "es": 0.1}, 1.0)
        found: list = [
            [Segment(w.start, w.start + w.seconds, str(pitch), _words(w, pitch) if asked.words else ())]
            for w, pitch in zip(windows, pitches)
        ]
        return Ran(found, ("npu", "cpu") if self.falls_back else ("npu",))


def _words(window: Window, pitch: int) -> tuple[Word, ...]:
    return (Word(window.start, window.start + window.seconds, str(pitch)),)


def _pitch(window: Window) -> int:
    """Of the strongest tone, to the nearest 10 Hz."""
    spectrum = np.abs(np.fft.rfft(window.samples))
    return round(float(np.argmax(spectrum)) * window.rate / len(window.samples) / 10) * 10
