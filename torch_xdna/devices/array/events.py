"""The event queue: what happens next, and when, in core cycles."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Engine:
    """Runs callbacks in order of time; those of one moment in the order in which they were asked for."""

    __slots__ = ("events", "now", "queue")

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self.queue: list[tuple[float, int, Callable[[Any], None], Any]] = []

    def after(self, cycles: float, callback: Callable[[Any], None], argument: Any = None) -> None:
        self.events += 1
        heappush(self.queue, (self.now + cycles, self.events, callback, argument))

    def run(self) -> None:
        """Until nothing is left to happen."""
        queue = self.queue
        while queue:
            self.now, _, callback, argument = heappop(queue)
            callback(argument)
