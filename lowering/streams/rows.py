"""layer_norm, softmax, gelu, add over whole rows of blocks -> the streams of every column.

Each column takes a contiguous share of the row blocks, one per trip; its blocks come on B, and the core of
row r works on rows 16r .. 16r + 15 of each. Four block columns make one C object of each core (4 pieces of 16
rows).
"""

from __future__ import annotations

import numpy as np

from torch_xdna.kernels_xdna1.contract import PIECES, ROW_KINDS, Op
from torch_xdna.lowering.buffers import Matrix, Pattern
from torch_xdna.lowering.host_data.blocks import BLOCK_WORDS, blocks_of
from torch_xdna.lowering.limits import CORE_ROWS
from torch_xdna.lowering.overlay.header import Header
from torch_xdna.lowering.steps.kinds import RowStep
from torch_xdna.lowering.streams.step_streams import (
    StepStreams,
    block_pattern,
    header_object,
    rows_per_object,
)

PIECE_WORDS = BLOCK_WORDS // CORE_ROWS
KINDS = {kind.name: kind for kind in ROW_KINDS}


def row_header(step: RowStep, columns: int) -> tuple[int, ...]:
    """Words of the header object."""
    kind, width = KINDS[step.kind], step.valid_columns
    norm = step.kind == "layer_norm"
    header = Header(
        Op.ROWS,
        outer=step.x.row_blocks // columns,
        inner=blocks_of(width) if kind.statistics else 0,
        extra=step.out.col_blocks // PIECES,
        per_output=kind.operands * PIECES,
        kind=kind.code,
        valid=width if step.kind == "softmax" else 0,
        eps=step.eps if norm else 0.0,
        width=width if norm else 0,
        inverse_width=float(np.float32(1.0) / np.float32(width)) if norm else 0.0,
    )
    return header.words()


def row_streams(step: RowStep, columns: int) -> StepStreams:
    """Streams of a row op. One trip is one row block on every column."""
    trips = step.x.row_blocks // columns
    width = step.out.col_blocks
    kind = KINDS[step.kind]
    operands, statistics = kind.operands, blocks_of(step.valid_columns) if kind.statistics else 0
    streams = StepStreams(
        header=row_header(step, columns),
        trips=trips,
        a_blocks=0,
        b_blocks=statistics + operands * width,
        c_blocks=width,
    )
    for column in range(columns):
        if step.kind == "layer_norm":
            _header_and_vectors(streams, step, column, columns)
        else:
            header_object(streams, column, columns, step, copies=3)
        first = column * trips * width
        if step.kind == "add":
            assert step.y is not None
            _add_operands(streams, column, step.x, step.y, first, trips * width)
        elif statistics == width:
            streams.add(column, "B", step.x.buffer, block_pattern(first, ((trips, width), (2, 0)), width))
        else:
            for trip in range(trips):
                start = first + trip * width
                streams.add(column, "B", step.x.buffer, block_pattern(start, (), statistics))
                streams.add(column, "B", step.x.buffer, block_pattern(start, (), width))
        words = BLOCK_WORDS
        loops = (
            (trips, width * words),
            (width // PIECES, PIECES * words),
            (CORE_ROWS, PIECE_WORDS),
            (PIECES, words),
        )
        streams.add(column, "C", step.out.buffer, Pattern(first * words, loops, PIECE_WORDS))
    groups = trips * width // PIECES
    streams.calls = {"row_stats": trips * statistics, "row_apply": groups * PIECES * operands}
    return streams


def _header_and_vectors(streams: StepStreams, step: RowStep, column: int, columns: int) -> None:
    """Header, gamma and beta, each once per core row: three consecutive objects of the weights, or the header alone."""
    rows = rows_per_object(columns)
    if step.vectors is None:
        streams.add(column, "A", step.header, block_pattern(0, ((3, 1), (rows, 0))))
    else:
        streams.add(column, "A", step.header, block_pattern(0, ((rows, 0),)))
        streams.add(column, "A", step.vectors, block_pattern(0, ((2, 1), (rows, 0))))
    streams.prologue = 3 * rows


def _add_operands(streams: StepStreams, column: int, x: Matrix, y: Matrix, first: int, count: int) -> None:
    """Blocks of x and y alternating. The sum commutes, so the one lower in memory may come first."""
    if x.buffer.arg == y.buffer.arg and x.buffer.offset != y.buffer.offset:
        low, high = sorted((x.buffer, y.buffer), key=lambda b: b.offset)
        streams.add(
            column, "B", low, block_pattern(first, ((count, 1), (2, high.offset - low.offset))), also=high
        )
        return
    for index in range(first, first + count):
        streams.add(column, "B", x.buffer, block_pattern(index, ()))
        streams.add(column, "B", y.buffer, block_pattern(index, ()))
