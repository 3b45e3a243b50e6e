"""A timed wait that polls: XRT's own `run.wait` holds the interpreter's lock, so no other thread would run.

The state of a run is a word in shared memory that the driver writes at the end, so reading it costs a
microsecond or two and no system call. Between looks the thread sleeps: first most of the time that the
program took before, then in steps that grow with the time already waited (a wait is late by at most 1/16 of
itself or half a millisecond).
"""

from __future__ import annotations

import time
from collections.abc import Callable

SHORTEST_S = 20e-6
LONGEST_S = 500e-6


def until(done: Callable[[], bool], *, timeout: float, expected: float = 0.0) -> float | None:
    """Seconds waited until `done()` held, or None after `timeout` seconds. `expected`: how long it took
    before.

    A signal handler that raises ends the wait with its exception.
    """
    start = time.monotonic()
    if done():
        return 0.0
    nap = min(expected * 0.75, timeout)
    while True:
        time.sleep(max(nap, SHORTEST_S))
        if done():
            return time.monotonic() - start
        waited = time.monotonic() - start
        if waited >= timeout:
            return None
        nap = min(waited / 16, LONGEST_S, timeout - waited)
