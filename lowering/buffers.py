"""Parts of the kernel arguments, and how blocks are arranged in them. Sizes are in blocks (8192 bytes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lowering.limits import CORE_ROWS

if TYPE_CHECKING:
    pass


WEIGHTS, ACTIVATIONS = 0, 1  # kernel arguments


@dataclass(eq=False)
class Buffer:
    """A contiguous part of a kernel argument. `offset` is set when memory is planned."""

    arg: int
    blocks: int
    name: str = ""
    offset: int = -1


@dataclass(frozen=True)
class Matrix:
    """A-order blocks: block (i, n) at `i * col_blocks + n`; both counts are multiples of 4."""

    buffer: Buffer
    row_blocks: int
    col_blocks: int

    @property
    def groups(self) -> int:
        """Row groups: every group gives one row block to each of the four core rows."""
        return self.row_blocks // CORE_ROWS


@dataclass(frozen=True)
class KeyValues:
    """Attention's keys and values: block `which` (0 K, 1 V) of key block i of a head at
    `(head * key_blocks + i) * 2 + which`. `heads` and `key_blocks` are padded to multiples of 4."""

    buffer: Buffer
    heads: int
    key_blocks: int


@dataclass(frozen=True)
class Planes:
    """A product's left side: its k blocks lie at `first + i * col_blocks + plane * plane_step + k`."""

    matrix: Matrix
    k_blocks: int
    planes: int = 1
    plane_step: int = 0
    first: int = 0
