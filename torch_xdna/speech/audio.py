"""Reading speech: any recording or video that FFmpeg's libraries decode, as blocks of mono float32 at the rate a
model wants.

`read_blocks` streams, so a file of an hour takes no more memory than one of a minute. Whatever can't be read
raises AudioError with one sentence, and nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr

from torch_xdna.speech.recordings.data import Truncated
from torch_xdna.speech.recordings.decode import (
    Damage,
    NoAudio,
    NoSound,
    decoded,
    end_seconds,
    header_seconds,
    reason,
)
from torch_xdna.speech.recordings.parts import Part, parts
from torch_xdna.speech.recordings.source import AudioError, is_stored, label, opened, shown

__all__ = ["AudioError", "AudioWarning", "duration", "read", "read_blocks", "shown"]

BLOCK_SECONDS = 10.0
FORMATS = "wav, flac, mp3, ogg, opus, m4a, mp4, webm, aac, wma, ..."
# Full scale is 1. Floats may well exceed it, but integers stored as floats (32768) lose words without a sign of
# it: the shipped model hears all at 100 times full scale and half at 32768 times.
LARGEST = 1000.0
# Channels whose sum has less than this share of their energies cancel each other (equal ones: 2, unrelated ones: 1).
CANCELLED = 0.1
ROUNDING = 1e-5  # seconds: half a sample at 48 kHz
_FEW_PACKETS = 2  # where a stream was cut out of a longer one, its first and last packet may be halves


class AudioWarning(UserWarning):
    """A recording was read, though not as it stands; the message is one sentence."""


def read_blocks(path: str | Path, rate: int, block_seconds: float = BLOCK_SECONDS) -> Iterator[np.ndarray]:
    """Yields float32 arrays (samples,), mono (the mean of the channels), resampled to `rate` Hz, of about
    `block_seconds` each. `path` may be a named pipe, and "-" for standard input.

    Raises AudioError for a recording that is missing, empty, not audio, known to be truncated (before the first
    block), or that holds samples which are no numbers or far beyond full scale. Warns (AudioWarning) of channels that
    cancel each other, where the loudest one is taken, and of damage that was left out.
    """
    try:
        yield from _blocks(path, rate, block_seconds)
    except AudioError:
        raise
    except Exception as error:  # one recording never takes others of the run down, whatever is the matter
        raise AudioError(f"{label(path)} can't be read: {reason(error)}.") from error


def read(path: str | Path, rate: int) -> np.ndarray:
    """The whole recording `path` at once: float32 (samples,), mono, at `rate` Hz. Raises AudioError as read_blocks
    does.
    """
    return np.concatenate(list(read_blocks(path, rate)))


def duration(path: str | Path) -> float:
    """Length of `path` in seconds as the headers tell it or FFmpeg guesses it, 0 for pipes; AudioError for what is no
    audio.
    """
    if not is_stored(path):
        return 0.0
    try:
        with opened(path) as (file, size):
            return sum(header_seconds(part.data) for part in parts(file, size) if part.data.size)
    except AudioError:
        raise
    except Exception as error:
        raise AudioError(f"{label(path)} can't be read: {reason(error)}.") from error


def _blocks(path: str | Path, rate: int, block_seconds: float) -> Iterator[np.ndarray]:
    name = label(path)
    with opened(path) as (file, size):
        found = _checked_parts(name, file, size)
        mono = _Mono(name)
        resampler, source_rate = None, 0
        for block, block_rate in _gathered(_frames(name, found), block_seconds):
            if resampler is None or block_rate != source_rate:
                if resampler is not None and len(out := resampler.resample_chunk(_NONE, last=True)):
                    yield out
                resampler, source_rate = soxr.ResampleStream(block_rate, rate, 1, dtype="float32"), block_rate
            out = resampler.resample_chunk(mono(block, block_rate))
            if len(out):
                yield out
        if resampler is None:
            raise AudioError(f"{name} holds no samples: its header is all there is.")
        if len(out := resampler.resample_chunk(_NONE, last=True)):
            yield out


_NONE = np.zeros(0, np.float32)


def _checked_parts(name: str, file, size: int) -> list[Part]:
    """What can be said before the first sample is decoded is said here."""
    try:
        found = [part for part in parts(file, size) if part.data.size]
        for part in found:
            there = end_seconds(part.data) if part.seconds else 0.0
            if there < part.seconds - ROUNDING:
                raise Truncated(f"{part.seconds:.2f} s are announced and {there:.2f} s are there")
    except Truncated as error:
        raise AudioError(f"{name} is truncated: {error}.") from error
    return found


def _frames(name: str, found: list[Part]) -> Iterator[tuple[np.ndarray, int]]:
    for part in found:
        damage, seconds = Damage(), 0.0
        try:
            for frame, rate in decoded(part, damage):
                seconds += len(frame) / rate
                yield frame, rate
        except NoSound as error:
            raise AudioError(f"{name} holds no sound: there is no audio stream in it.") from error
        except NoAudio as error:
            if part.is_bare:
                raise AudioError(f"{name} is not audio: it begins like none of {FORMATS}") from error
            raise AudioError(f"{name} can't be decoded as audio ({error}): expected {FORMATS}") from error
        if not seconds and damage.packets:
            raise AudioError(f"{name} can't be decoded as audio ({damage.reason}): expected {FORMATS}")
        what = part.lost
        if not what and seconds - damage.silence < part.seconds - ROUNDING:
            what = f"{part.seconds - seconds + damage.silence:.2f} s of {part.seconds:.2f} s"
        elif not what and damage.packets > _FEW_PACKETS:
            what = f"{damage.packets} packets"
        if what:
            warnings.warn(f"{name} is damaged: {what} were left out.", AudioWarning, stacklevel=2)


def _gathered(frames: Iterator[tuple[np.ndarray, int]], seconds: float) -> Iterator[tuple[np.ndarray, int]]:
    """Frames of one rate and number of channels in blocks of about `seconds`."""
    held: list[np.ndarray] = []
    count, held_rate = 0, 0
    for frame, rate in frames:
        if held and (rate != held_rate or frame.shape[1] != held[0].shape[1]):
            yield np.concatenate(held), held_rate
            held, count = [], 0
        held.append(frame)
        count, held_rate = count + len(frame), rate
        if count >= seconds * rate:
            yield np.concatenate(held), rate
            held, count = [], 0
    if held:
        yield np.concatenate(held), held_rate


class _Mono:
    """Mixes blocks (frames, channels) to one channel, a second at a time, and checks them on the way.

    The mean, except where the channels cancel each other (a cable with swapped poles, a "vocal remover"): there
    the channel that was the loudest when this was first found.
    """

    def __init__(self, name: str):
        self._name = name
        self._seconds = 0.0
        self._loudest: int | None = None

    def __call__(self, block: np.ndarray, rate: int) -> np.ndarray:
        self._check(block, rate)
        pieces = [self._mixed(block[at : at + rate]) for at in range(0, len(block), rate)]
        self._seconds += len(block) / rate
        return np.ascontiguousarray(np.concatenate(pieces))

    def _mixed(self, block: np.ndarray) -> np.ndarray:
        if block.shape[1] == 1:
            return block[:, 0]
        mean = block.mean(axis=1)
        energies = np.square(block, dtype=np.float64).sum(axis=0)
        energy = np.square(mean * block.shape[1], dtype=np.float64).sum()
        if energy >= CANCELLED * energies.sum():
            return mean
        if self._loudest is None or self._loudest >= block.shape[1]:
            self._loudest = int(np.argmax(energies))
            warnings.warn(
                f"{self._name}: the channels cancel each other (opposite phase), so where they do only channel "
                f"{self._loudest + 1} of {block.shape[1]} is heard.",
                AudioWarning,
                stacklevel=2,
            )
        return block[:, self._loudest]

    def _check(self, block: np.ndarray, rate: int) -> None:
        bad = ~np.isfinite(block)
        if bad.any():
            raise AudioError(
                f"{self._name} holds {int(bad.sum())} NaN or infinite samples, the first at "
                f"{self._when(bad, rate):.2f} s."
            )
        large = np.abs(block) > LARGEST
        if large.any():
            raise AudioError(
                f"{self._name} holds samples as large as {np.abs(block).max():.1e} where full scale is 1, the first "
                f"at {self._when(large, rate):.2f} s: write it with samples from -1 to 1."
            )

    def _when(self, marked: np.ndarray, rate: int) -> float:
        return self._seconds + int(np.argmax(marked.any(axis=1))) / rate
