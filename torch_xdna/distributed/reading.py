"""CPU tasks that read and resample, without torch: recordings -> units of windows that workers take whole.

A unit is what shares batches and what is done again when a worker dies. Which windows it holds follows from the
recordings alone, so the result of a job does not depend on how many workers there are: short recordings go together,
long ones go in pieces, each piece with a language of its own. A unit travels as one row: `meta` (JSON) and `samples`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from torch_xdna.distributed.sources import Recording
from torch_xdna.speech.audio import AudioError, AudioWarning, read_blocks
from torch_xdna.speech.windows import Window, windows

UNIT_SECONDS = 300.0  # 19 MB of samples
GROUP = 16  # recordings that one task reads and whose windows may share batches


@dataclass
class Part:
    """A recording's windows in one unit: `lengths` in samples, from `starts` in seconds on. `number` counts the
    recording's parts, `is_last` ends them; `error`: why reading ended here; `note`: of damage that was left out."""

    recording: Recording
    number: int
    starts: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    is_last: bool = False
    error: str = ""
    note: str = ""


@dataclass
class Unit:
    """Windows of one or more recordings, in order."""

    rate: int
    parts: list[Part] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(map(len, self.samples)) / self.rate

    def row(self) -> dict[str, Any]:
        meta = {"rate": self.rate, "parts": [asdict(part) for part in self.parts]}
        samples = np.concatenate(self.samples) if self.samples else np.zeros(0, np.float32)
        return {"meta": json.dumps(meta), "samples": samples.astype(np.float32).tobytes()}

    @classmethod
    def of(cls, meta: str, samples: bytes) -> Unit:
        stated, whole = json.loads(meta), np.frombuffer(samples, np.float32)
        unit, at = cls(stated["rate"]), 0
        for entry in stated["parts"]:
            part = Part(**{**entry, "recording": Recording(**entry["recording"])})
            unit.parts.append(part)
            for length in part.lengths:
                unit.samples.append(whole[at : at + length])
                at += length
        return unit

    def windows(self) -> Iterator[tuple[Part, Window]]:
        samples = iter(self.samples)
        for part in self.parts:
            for start in part.starts:
                yield part, Window(start, next(samples), self.rate)


def groups(found: Sequence[Recording], size: int = GROUP) -> list[dict[str, str]]:
    """What tasks are made of: rows with some recordings each, as JSON."""
    starts = range(0, len(found), size)
    return [{"group": json.dumps([asdict(one) for one in found[at : at + size]])} for at in starts]


def read(row: dict[str, str], rate: int, window_seconds: float) -> Iterator[dict[str, Any]]:
    """The units of a group, one after another; holds one at a time."""
    for unit in _units([Recording(**entry) for entry in json.loads(row["group"])], rate, window_seconds):
        yield unit.row()


def _units(found: Sequence[Recording], rate: int, window_seconds: float) -> Iterator[Unit]:
    unit = Unit(rate)
    for recording in found:
        part = Part(recording, 0)
        unit.parts.append(part)
        with warnings.catch_warnings(record=True) as told:  # a task has its process to itself
            warnings.simplefilter("always", AudioWarning)
            try:
                for window in windows(read_blocks(recording.path, rate), rate, window_seconds):
                    if unit.samples and unit.seconds + window.seconds > UNIT_SECONDS:
                        number = part.number + bool(part.lengths)
                        if not part.lengths:
                            unit.parts.remove(part)
                        yield unit
                        part = Part(recording, number)
                        unit = Unit(rate, [part])
                    part.starts.append(window.start)
                    part.lengths.append(len(window.samples))
                    unit.samples.append(window.samples)
            except AudioError as error:
                part.error = str(error)
        part.note = " ".join(str(one.message) for one in told if issubclass(one.category, AudioWarning))
        part.is_last = True
    yield unit
