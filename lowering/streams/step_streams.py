"""What one step asks of the shims: per column and path an ordered list of patterns over buffers.

Logical time is counted in trips of the cores' outer loop. Every trip takes the same number of blocks from
each path, so a block's place in its stream says in which trip it is needed or made; the scheduler orders by
that.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from torch_xdna.lowering.buffers import Buffer, Pattern
from torch_xdna.lowering.host_data.blocks import BLOCK_WORDS
from torch_xdna.lowering.limits import CORE_ROWS
from torch_xdna.lowering.steps.kinds import Step

PATHS = ("A", "B", "C")


@dataclass(frozen=True)
class Access:
    """A pattern relative to `buffer`; `also` is a second buffer that it reaches."""

    buffer: Buffer
    pattern: Pattern
    also: Buffer | None = None


@dataclass
class StepStreams:
    """`header`: words of the header object. `a_blocks`, `b_blocks`, `c_blocks`: blocks that a shim moves on each
    path per trip; `prologue` blocks come on A before the first trip. `by_path`: (column, path) -> its
    patterns. `calls`: kernel calls of each core."""

    header: tuple[int, ...]
    trips: int
    a_blocks: int
    b_blocks: int
    c_blocks: int
    prologue: int = 0
    by_path: dict[tuple[int, str], list[Access]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[str, int] = field(default_factory=dict)

    def add(
        self, column: int, path: str, buffer: Buffer, pattern: Pattern, also: Buffer | None = None
    ) -> None:
        """Append a pattern to the stream of a path."""
        if pattern.words:
            self.by_path[column, path].append(Access(buffer, pattern, also))

    def per_trip(self, path: str) -> int:
        """Words per trip that a shim moves on a path."""
        return BLOCK_WORDS * {"A": self.a_blocks, "B": self.b_blocks, "C": self.c_blocks}[path]


def rows_per_object(columns: int) -> int:
    """Core rows that one A object serves: with fewer than 4 columns an A path feeds several rows."""
    return CORE_ROWS // columns


def block_pattern(start: int, loops: tuple[tuple[int, int], ...], run: int = 1) -> Pattern:
    """A pattern whose start, steps and run are given in blocks."""
    words = BLOCK_WORDS
    return Pattern(start * words, tuple((count, step * words) for count, step in loops), run * words)


def header_object(streams: StepStreams, column: int, columns: int, step: Step, copies: int = 1) -> None:
    """The header goes first on every A path, once per core row; `copies` > 1 fills unused objects."""
    rows = rows_per_object(columns)
    streams.add(column, "A", step.header, block_pattern(0, ((copies * rows, 0),)))
    streams.prologue = copies * rows
