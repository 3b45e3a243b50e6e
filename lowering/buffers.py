"""Parts of the kernel arguments, how blocks are arranged in them, and in which order words are read from them. Sizes
are in blocks (8192 bytes), those of a `Pattern` in words."""

from __future__ import annotations

from dataclasses import dataclass

from torch_xdna.lowering.limits import CORE_ROWS

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


@dataclass(frozen=True)
class Forms:
    """Which forms a descriptor may have beside a plain run of words: wraps (inner dimensions), repeats of the
    same words, iterations (a repeat that moves on). What is not allowed is written out as more transfers.

    Iterated descriptors of a shim timed out or mismatched in one public test generator on this chip
    (FIM43-Redeye/xdna-emu), and mlir-aie's own products use them: a doubt, so there is a way without.
    """

    wrapped: bool = True
    repeated: bool = True
    iterated: bool = True


EVERY_FORM = Forms()


@dataclass(frozen=True)
class Pattern:
    """Words `base + sum(i_n * step_n) + 0..run-1` for all loop indices, outermost loop first. In words.
    `forms`: what its descriptors may look like."""

    base: int
    loops: tuple[tuple[int, int], ...]
    run: int
    forms: Forms = EVERY_FORM

    @property
    def words(self) -> int:
        total = self.run
        for count, _ in self.loops:
            total *= count
        return total
