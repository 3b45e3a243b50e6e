"""An actor that holds a model: units in, pieces of transcripts out.

An error of a recording is its row's error. What fails in the model is tried once more, window by window, then it is
the row's error too, marked as the run's own: the next run does that recording again.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from torch_xdna.distributed.reading import Part, Unit
from torch_xdna.distributed.sources import Recording
from torch_xdna.errors import XdnaError
from torch_xdna.speech.engine import Engine, Wanted
from torch_xdna.speech.heard import Heard
from torch_xdna.speech.subtitles import Segment
from torch_xdna.speech.windows import Window

RECORDING, RUN = "recording", "run"  # whose error it is


class Worker:
    """`load` makes the engine, once, in the actor's process. `name`: host and process, for whoever looks for one."""

    def __init__(self, load: Callable[[], Engine], asked: Wanted, batch_size: int) -> None:
        self.engine, self.asked, self.batch_size = load(), asked, batch_size
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Rows of `reading.Unit.row` -> rows of one JSON text, a piece each."""
        units = [Unit.of(meta, samples) for meta, samples in zip(batch["meta"], batch["samples"])]
        return {"piece": [json.dumps(piece) for unit in units for piece in self.pieces(unit)]}

    def pieces(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """One for each part of the unit, as `results.Pieces` takes them."""
        found = {id(part): _Found() for part in unit.parts}
        batch: list[tuple[Part, Window]] = []
        for part, window in unit.windows():
            batch.append((part, window))
            if len(batch) == self.batch_size:
                self._run(batch, found)
                batch = []
        self._run(batch, found)
        for part in unit.parts:
            yield self._piece(part, found[id(part)], unit.rate)

    def _run(self, batch: list[tuple[Part, Window]], found: dict[int, _Found]) -> None:
        batch = [(part, window) for part, window in batch if not found[id(part)].error]
        if not batch:
            return
        heard = [found[id(part)].heard for part, _ in batch]
        try:
            ran = self.engine.run([window for _, window in batch], heard, self.asked)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    self._run([one], found)
                return
            part, window = batch[0]
            found[id(part)].fail(window, error)
            return
        for (part, window), segments in zip(batch, ran.found):
            mine = found[id(part)]
            mine.devices.update(ran.devices)
            if isinstance(segments, XdnaError):
                mine.fail(window, segments)
            else:
                mine.segments += segments

    def _piece(self, part: Part, found: _Found, rate: int) -> dict[str, Any]:
        return {
            "recording": asdict(part.recording),
            "number": part.number,
            "is_last": part.is_last,
            "segments": [asdict(segment) for segment in found.segments],
            "seconds": sum(part.lengths) / rate,
            "languages": found.heard.seconds,
            "devices": sorted(found.devices),
            "error": part.error or found.error,
            "whose": (RECORDING if part.error else RUN) if part.error or found.error else "",
            "note": part.note,
            "worker": self.name,
        }


def lost(recording: Recording, error: str) -> dict[str, Any]:
    """The only piece of a recording that no worker came back with."""
    piece = {"recording": asdict(recording), "number": 0, "is_last": True, "segments": [], "seconds": 0.0}
    return {**piece, "languages": {}, "devices": [], "error": error, "whose": RUN, "note": "", "worker": None}


class _Found:
    """What came of a part so far."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.heard, self.devices, self.error = Heard(), set[str](), ""

    def fail(self, window: Window, error: Exception) -> None:
        reason = (
            str(error).rstrip(".") if isinstance(error, XdnaError) else f"{type(error).__name__}: {error}"
        )
        end = window.start + window.seconds
        self.error = self.error or f"{window.start:.2f} s to {end:.2f} s can't be transcribed: {reason}."
