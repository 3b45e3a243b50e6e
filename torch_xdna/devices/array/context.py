"""What all parts of the array share: the clock, what things cost, a timeline if one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_xdna.devices.array.events import Engine
from torch_xdna.devices.array.timeline import Trace
from torch_xdna.lowering.time.costs import Costs

Kernel = Callable[..., Any]  # of addresses and integers, as the core program calls it


class Context:
    """One for each configured array. `moved_words`: 32-bit words that the shims have moved so far."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.engine = Engine()
        self.trace: Trace | None = None
        self.moved_words = 0
