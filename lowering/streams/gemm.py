"""A product over blocks -> the streams of every column.

Loops of the cores: rounds of block columns outermost, row groups inside, k blocks innermost. In round j
column c computes one block column from panel `columns * j + c`; the core of row r takes row block 4g + r of
group g.
"""

from __future__ import annotations

from itertools import product

from torch_xdna.kernels_xdna1.contract import BlockOrder, Op
from torch_xdna.lowering.buffers import KeyValues, Matrix, Pattern
from torch_xdna.lowering.limits import CORE_ROWS
from torch_xdna.lowering.overlay.header import Header
from torch_xdna.lowering.steps.kinds import GemmStep, Panels
from torch_xdna.lowering.streams.step_streams import (
    StepStreams,
    block_pattern,
    header_object,
    rows_per_object,
)


def gemm_header(step: GemmStep, columns: int) -> tuple[int, ...]:
    """Words of the header object."""
    residuals = columns if step.residual else 0
    rounds = sum(p.count for p in step.panels) // columns
    first, end = step.valid
    header = Header(
        Op.GEMM,
        outer=rounds * step.groups,
        inner=step.k_blocks,
        extra=residuals,
        first_row=first,
        end_row=end,
        groups=step.groups,
    )
    return header.words()


def gemm_streams(step: GemmStep, columns: int) -> StepStreams:
    """Streams of a product. Trips of the cores: rounds x row groups."""
    residuals = columns if step.residual else 0
    rounds = sum(p.count for p in step.panels) // columns
    rows = rows_per_object(columns)
    streams = StepStreams(
        header=gemm_header(step, columns),
        trips=rounds * step.groups,
        a_blocks=(step.k_blocks + residuals) * rows,
        b_blocks=step.k_blocks + 1,
        c_blocks=CORE_ROWS,
    )
    for column in range(columns):
        header_object(streams, column, columns, step)
        _left_side(streams, step, column, columns, rounds)
        for panels in step.panels:
            size = step.k_blocks + 1
            loops = ((panels.count // columns, columns * size), (step.groups, 0))
            streams.add(column, "B", panels.weights, block_pattern(column * size, loops, size))
            streams.add(column, "C", panels.target.buffer, _results(panels, step.groups, column, columns))
    trips = streams.trips
    streams.calls = {
        "gemm_init": trips,
        "gemm_step": trips * step.k_blocks,
        "gemm_params": trips,
        "gemm_residual": trips * residuals,
        "gemm_finish": trips,
    }
    return streams


def _left_side(streams: StepStreams, step: GemmStep, column: int, columns: int, rounds: int) -> None:
    rows = rows_per_object(columns)
    first_row = column * rows
    x_loops: tuple[tuple[int, int], ...] = ()
    if step.x is None:
        x_step, x_first = 0, 0
    else:
        width = step.x.matrix.col_blocks
        x_loops = ((step.x.planes, step.x.plane_step), (step.x.k_blocks, 1), (rows, width))
        x_step, x_first = CORE_ROWS * width, step.x.first + first_row * width
    if step.residual is None:
        if step.x is None:
            return
        loops = ((rounds, 0), (step.groups, x_step), *x_loops)
        streams.add(column, "A", step.x.matrix.buffer, block_pattern(x_first, loops))
        return
    for j in range(rounds):
        for group in range(step.groups):
            if step.x is not None:
                start = x_first + group * x_step
                streams.add(column, "A", step.x.matrix.buffer, block_pattern(start, x_loops))
            row_block, block_column = CORE_ROWS * group + first_row, columns * j
            if isinstance(step.residual, Matrix):
                width = step.residual.col_blocks
                loops = ((columns, 1), (rows, width))
                residual = block_pattern(row_block * width + block_column, loops)
                streams.add(column, "A", step.residual.buffer, residual)
            else:
                for q, row in product(range(columns), range(rows)):
                    gathered = step.residual.pattern(row_block + row, block_column + q)
                    streams.add(column, "A", step.residual.buffer, gathered)


def _results(panels: Panels, groups: int, column: int, columns: int) -> Pattern:
    rounds, rows = panels.count // columns, CORE_ROWS * groups
    target = panels.target
    if isinstance(target, KeyValues):
        head = 2 * target.key_blocks
        start = column * head + (0 if panels.order == BlockOrder.KEYS else 1)
        return block_pattern(start, ((rounds, columns * head), (rows, 2)))
    assert isinstance(target, Matrix)
    return block_pattern(panels.first + column, ((rounds, columns), (rows, target.col_blocks)))
