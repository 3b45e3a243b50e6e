"""Wall-clock seconds per stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass
class Stopwatch:
    """Wall-clock seconds per stage, measured here (nothing modelled)."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def each(self, name: str, items: Iterator[Item]) -> Iterator[Item]:
        """The items, with the time that it takes to make them booked under `name`."""
        end = object()
        while True:
            with self.stage(name):
                item: Any = next(items, end)
            if item is end:
                return
            yield item
