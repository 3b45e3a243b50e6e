"""A model for jobs that hears the pitch of tones (tests/serve/scripted.py), and tells of every window that it ran."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from scripted import RATE, Scripted

from torch_xdna.distributed.claims import Claims
from torch_xdna.speech.engine import Ran, Wanted

DEADLY = "7000"  # a tone of so many Hz ends the process that hears it


class Slow(Scripted):
    """Takes `seconds` for a batch and writes a line per window to a file of `folder`, which workers share."""

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__()
        self._folder, self._seconds = folder, seconds

    def run(self, windows, heard, asked: Wanted) -> Ran:
        time.sleep(self._seconds)
        ran = super().run(windows, heard, asked)
        if any(segments[0].text == DEADLY for segments in ran.found):
            os._exit(1)
        with open(self._folder / f"{os.getpid()}", "a") as log:
            log.write("".join(f"{segments[0].text}\n" for segments in ran.found))
        return ran


class Toy:
    """`torch_xdna.distributed.job.Chosen`."""

    name, rate, window_seconds = "toy", RATE, 10.0

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self._folder, self._seconds = folder, seconds

    def load(self, claims: Claims) -> Callable[[], Slow]:
        folder, seconds = self._folder, self._seconds
        return lambda: Slow(folder, seconds)
