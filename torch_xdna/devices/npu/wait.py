"""A timed wait that polls: XRT's own `run.wait` holds the interpreter's lock, so no other thread would run.

The state of a run is a word in shared memory that the driver writes at the end, so reading it costs a microsecond or
two and no system call. The runs of a program take nearly the same time each, so the thread first sleeps for most of
what they took lately (`Pace`), then looks every 0.2 ms, or every 1/256 of the time already waited.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_NAP = 0.95  # of the time that runs took lately
SHORTEST_S = 20e-6
USUAL_S = 200e-6


class Pace:
    """How long runs take, in seconds, learned from waiting for them. Threads may share it: it is only a guess."""

    def __init__(self) -> None:
        self.expected = 0.0

    def learn(self, seconds: float, *, overslept: bool) -> None:
        """A run that had ended at the first look took an unknown time, less than the wait."""
        if overslept:
            self.expected *= 0.75
        else:
            self.expected += (0.25 if self.expected else 1.0) * (seconds - self.expected)


def until(done: Callable[[], bool], *, timeout: float, pace: Pace | None = None) -> float | None:
    """Seconds waited until `done()` held, or None after `timeout` seconds.

    A signal handler that raises ends the wait with its exception.
    """
    pace = pace or Pace()
    start = time.monotonic()
    if done():
        pace.learn(0.0, overslept=True)
        return 0.0
    nap = min(pace.expected * FIRST_NAP, timeout)
    overslept = nap > USUAL_S
    while True:
        time.sleep(max(nap, SHORTEST_S))
        if done():
            waited = time.monotonic() - start
            pace.learn(waited, overslept=overslept)
            return waited
        overslept = False
        waited = time.monotonic() - start
        if waited >= timeout:
            return None
        nap = min(waited / 16, max(USUAL_S, waited / 256), timeout - waited)
