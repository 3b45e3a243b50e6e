"""Cuts a stream of samples into windows that fit a model's context, at quiet places, so that no word is cut
in two.

Whisper's own long-form decoding moves on to where its last timestamp says; one wrong timestamp there loses or
repeats words, and every window waits for the one before. Windows cut by loudness are independent: they batch,
and a segment's time can't be further off than its window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

FRAME_SECONDS = 0.02
QUIET_SECONDS = 0.2  # loudness is averaged over this before the quietest place is chosen
EARLIEST_CUT = 0.5  # of a window: no window but the last is shorter than this share of the context
SILENCE_DBFS = -70.0  # a window whose loudest frame is below this holds no speech and is not transcribed


@dataclass(frozen=True)
class Window:
    """`samples` (float32, at the model's rate) begin `start` seconds into the file."""

    start: float
    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def is_silent(self) -> bool:
        return loudness(self.samples, self.rate).max() < SILENCE_DBFS


def windows(blocks: Iterable[np.ndarray], rate: int, seconds: float) -> Iterator[Window]:
    """Yields windows of at most `seconds`, one after another without gap or overlap.

    Holds one window and one block at a time, whatever the length of the stream.
    """
    length = int(seconds * rate)
    kept, start = np.zeros(0, np.float32), 0
    for block in blocks:
        kept = np.concatenate([kept, block])
        while len(kept) > length:
            cut = quietest(kept[:length], rate, int(length * EARLIEST_CUT))
            yield Window(start / rate, kept[:cut].copy(), rate)
            start, kept = start + cut, kept[cut:]
    if len(kept):
        yield Window(start / rate, kept, rate)


def quietest(samples: np.ndarray, rate: int, earliest: int) -> int:
    """The sample at or after `earliest` in the middle of the quietest QUIET_SECONDS; the last of equally
    quiet ones.
    """
    levels = loudness(samples, rate)
    width = max(1, round(QUIET_SECONDS / FRAME_SECONDS))
    if len(levels) <= width:
        return len(samples)
    power = np.convolve(10 ** (levels / 10), np.ones(width), mode="valid")
    frame = int(FRAME_SECONDS * rate)
    first = min(len(power) - 1, max(0, earliest // frame - width // 2))
    latest = len(power) - 1 - int(np.argmin(power[first:][::-1]))
    return (latest + width // 2) * frame


def speech_bounds(samples: np.ndarray, rate: int, below_peak: float = 30.0) -> tuple[float, float]:
    """First and last second at which it is at most `below_peak` dB quieter than at its loudest."""
    levels = loudness(samples, rate)
    loud = np.flatnonzero(levels > levels.max() - below_peak)
    return float(loud[0] * FRAME_SECONDS), min(len(samples) / rate, float((loud[-1] + 1) * FRAME_SECONDS))


def loudness(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level of every FRAME_SECONDS (the last one may be shorter) in dB of full scale; digital silence is
    -200.
    """
    frame = int(FRAME_SECONDS * rate)
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % frame)).reshape(-1, frame)
    counts = np.full(len(padded), frame)
    counts[-1] = len(samples) - frame * (len(padded) - 1)
    return 10 * np.log10(np.maximum((padded**2).sum(axis=1) / counts, 1e-20))
