"""The left side of a convolution over a host input: the host writes every frame once, transfers gather the
rest.

A convolution of three taps is a product whose left side holds, per row t, the frames around it side by side
(im2col). Writing that on the host costs up to five copies of the input, and a host pays for every cache line
that it hands to the NPU. So the host writes *pieces*: 8 channels of one frame as bf16, 16 bytes, exactly what
one row of a 4 x 8 tile holds. Frames that are neighbours in a plane (every frame, or every second one) are
neighbours in memory:

    line (phase, group):  piece of row -1, row 0, row 1, ...      frame = phases * row + phase, group of channels

Four rows of a tile are then 64 contiguous bytes, the next tile of a block is one line further, and another
tap is another phase or the same lines one piece further. A step that only changes order (`GemmStep` with
`ConvInput` as its residual) brings the blocks to the array and writes them as an ordinary matrix; the products
read windows of its block columns.

With 80 channels (10 groups) a tap is one block of 8 groups, and the 2 groups that are left share a block with
those of three more taps. The 7 block columns that three planes need together are ordered so that each plane's
4 are neighbours:

    columns   tap -2 | rest of -2..1 | tap -1 | tap 0 | tap 1 | tap 2 | rest of 0..3
    plane -1  [--------------------------------------]
    plane  0           [--------------------------------------]
    plane +1                                   [--------------------------------------]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torch_xdna.lowering.buffers import ACTIVATIONS, Buffer, Pattern
from torch_xdna.lowering.host_data import native
from torch_xdna.lowering.host_data.bf16 import FEW, to_bf16
from torch_xdna.lowering.host_data.blocks import ceil_div
from torch_xdna.lowering.limits import BLOCK, BLOCK_BYTES

GROUP = 8  # channels of a piece: the columns of a tile
PIECE_BYTES = 2 * GROUP
PIECE_WORDS = PIECE_BYTES // 4
TILES = BLOCK // GROUP  # tiles beside each other in a block
TILE_ROWS = 4
# Rows 2t + center of a convolution that one of stride 2 follows, in three planes.
PLANES = (("odd rows before", -1), ("even rows", 0), ("odd rows", 1))
_PIECE = np.complex128  # stands for a piece: 16 bytes that numpy moves as one item

Slot = tuple[int, int]  # (tap, group): which frame, counted from phases * row, and which channels


@dataclass(frozen=True)
class Column:
    """A block column: its 8 slots, and in pieces where row 0 of the first lies and how to walk the others."""

    slots: tuple[Slot, ...]
    base: int
    loops: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ConvInput:
    """A host input of `rows` frames x `channels` as lines of pieces, and the block columns made from them."""

    buffer: Buffer
    channels: int
    phases: int
    lines: tuple[Slot, ...]  # (phase, group) in memory's order
    line: int  # pieces of one line
    before: int  # pieces of a line before row 0
    row_blocks: int
    columns: tuple[Column, ...]

    def pattern(self, row_block: int, column: int) -> Pattern:
        """The words of a block. Columns that only fill the matrix up repeat the last one."""
        found = self.columns[min(column, len(self.columns) - 1)]
        base = (found.base + row_block * BLOCK) * PIECE_WORDS
        loops = tuple((count, step * PIECE_WORDS) for count, step in found.loops)
        return Pattern(base, loops, TILE_ROWS * PIECE_WORDS)

    def window(self, center: int) -> tuple[int, tuple[Slot | None, ...]]:
        """The fewest neighbouring columns that hold taps center - 1 .. center + 1: the first one, and per slot
        (0..2, group), or None where the product multiplies by zero."""
        groups = ceil_div(self.channels, GROUP)
        wanted = {(center - 1 + tap, group): (tap, group) for tap in range(3) for group in range(groups)}
        count = len(self.columns)
        spans = [(size, first) for size in range(1, count + 1) for first in range(count - size + 1)]
        for size, first in spans:
            slots = [slot for column in self.columns[first : first + size] for slot in column.slots]
            if wanted.keys() <= set(slots):
                left = dict(wanted)
                return first, tuple(left.pop(slot, None) for slot in slots)
        raise AssertionError(f"no columns hold the frames around {center}")

    def write(self, out: np.ndarray, matrix: np.ndarray) -> None:
        """(frames, channels) fp32, any strides -> the lines, into the buffer's uint16; zeros around the frames."""
        if matrix.size > FEW and matrix.dtype == np.float32 and (compiled := native.functions()):
            table = np.array(self.lines, np.int64)
            compiled.write_frames(out, matrix, table, self.phases, self.line, self.before)
            return
        lines = out.reshape(-1).view(_PIECE)[: len(self.lines) * self.line].reshape(-1, self.line)
        pieces = self._pieces(matrix)
        for place, (phase, group) in enumerate(self.lines):
            rows = pieces[phase :: self.phases, group] if group < pieces.shape[1] else pieces[:0, 0]
            end = self.before + len(rows)
            lines[place, : self.before] = 0
            lines[place, self.before : end] = rows
            lines[place, end:] = 0

    def _pieces(self, matrix: np.ndarray) -> np.ndarray:
        """(frames, groups) of pieces."""
        short = -self.channels % GROUP
        bits = to_bf16(np.pad(matrix, ((0, 0), (0, short))) if short else matrix)
        return np.ascontiguousarray(bits).view(_PIECE)


def conv_input(channels: int, centers: Sequence[int], phases: int, row_blocks: int, name: str) -> ConvInput:
    """Lines and columns for the rows `phases * t + center` of each center, with their neighbours.

    `phases` is 1 or 2; `row_blocks`: of the matrix that is made, rows beyond the frames are zero.
    """
    full, rest = divmod(ceil_div(channels, GROUP), TILES)
    if rest > 2:  # too many to share a block with the other taps: a block of their own
        full, rest = full + 1, 0
    groups = full * TILES + rest
    shared = list(range(full * TILES, groups))
    lines = [(0, group) for group in range(groups)]
    if phases == 2:  # the shared groups of both phases are neighbours
        lines += [(1, group) for group in (*shared, *range(full * TILES))]
    place = {slot: index for index, slot in enumerate(lines)}

    taps = range(min(centers) - 1, max(centers) + 2)
    starts = sorted({(center - 1) // phases for center in centers}) if rest else []
    tiles = phases * rest  # of one row's shared groups
    depth = TILES // tiles if rest else 0
    before = -(taps[0] // phases)
    after = max([taps[-1] // phases, *(start + depth - 1 for start in starts)])
    line = before + row_blocks * BLOCK + after

    def whole(tap: int) -> list[Column]:
        shift, phase = divmod(tap, phases)
        return [
            Column(
                tuple((tap, first + tile) for tile in range(TILES)),
                place[phase, first] * line + before + shift,
                ((BLOCK // TILE_ROWS, TILE_ROWS), (TILES, line)),
            )
            for first in range(0, full * TILES, TILES)
        ]

    def rests(start: int) -> Column:
        slots = [
            (phases * (start + row) + phase, group)
            for row in range(depth)
            for phase in range(phases)
            for group in shared
        ]
        base = place[0, shared[0]] * line + before + start
        return Column(tuple(slots), base, ((BLOCK // TILE_ROWS, TILE_ROWS), (depth, 1), (tiles, line)))

    columns = whole(taps[0])
    columns += [rests(start) for start in starts[:1]]
    for tap in taps[1:]:
        columns += whole(tap)
    columns += [rests(start) for start in starts[1:]]
    size = ceil_div(len(lines) * line * PIECE_BYTES, BLOCK_BYTES)
    buffer = Buffer(ACTIVATIONS, size, name)
    return ConvInput(buffer, channels, phases, tuple(lines), line, before, row_blocks, tuple(columns))
