"""Attention -> the streams of every column.

A task is (head, row group): four query blocks, one per core row, against all keys of a head. Full sets of
`columns` heads give each column one head; the tasks of the heads that are left are dealt out evenly, so 6
heads on 4 columns take 9 trips for 6 row groups, not 12.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from torch_xdna.kernels_xdna1.contract import Op
from torch_xdna.lowering.host_data.bf16 import round_bf16
from torch_xdna.lowering.host_data.blocks import blocks_of, ceil_div
from torch_xdna.lowering.limits import CORE_ROWS
from torch_xdna.lowering.overlay.header import Header
from torch_xdna.lowering.steps.kinds import AttentionStep
from torch_xdna.lowering.streams.step_streams import (
    StepStreams,
    block_pattern,
    header_object,
    rows_per_object,
)

HELD = 2  # A objects that a core keeps as scratch during a trip
Task = tuple[int, int, bool]  # head, row group, whether its result is wanted


def attention_header(step: AttentionStep, columns: int) -> tuple[int, ...]:
    """Words of the header object."""
    factor = np.float32(step.scale * math.log2(math.e))
    high = np.float32(round_bf16(np.array(factor)))
    low = np.float32(round_bf16(np.array(factor - high)))
    trips = len(_tasks(step, columns)[0])
    released = max(HELD, columns) - HELD
    header = Header(
        Op.ATTENTION,
        outer=trips,
        inner=blocks_of(step.keys),
        extra=released,
        valid=step.keys,
        scale_hi=float(high),
        scale_lo=float(low),
    )
    return header.words()


def attention_streams(step: AttentionStep, columns: int) -> StepStreams:
    """Streams of an attention. One trip is one task on every column."""
    tasks = _tasks(step, columns)
    trips, keys = len(tasks[0]), blocks_of(step.keys)
    rows, objects = rows_per_object(columns), max(HELD, columns)
    streams = StepStreams(
        header=attention_header(step, columns),
        trips=trips,
        a_blocks=objects * rows,
        b_blocks=2 * keys,
        c_blocks=CORE_ROWS,
    )
    width, head_step = step.q.col_blocks, 2 * step.kv.key_blocks
    for column in range(columns):
        header_object(streams, column, columns, step)
        for start, loops in _queries(step, columns, tasks):
            start += column * rows * width
            streams.add(column, "A", step.q.buffer, block_pattern(start, (*loops, (rows, width))))
        mine = tasks[column]
        for head, repeats in groupby(task[0] for task in mine):
            pattern = block_pattern(head * head_step, ((len(list(repeats)), 0),), 2 * keys)
            streams.add(column, "B", step.kv.buffer, pattern)
        for (head, wanted), run in groupby(mine, lambda task: (task[0], task[2])):
            groups = [group for _, group, _ in run]
            if wanted:
                start = CORE_ROWS * groups[0] * step.out.col_blocks + head
                pattern = block_pattern(start, ((CORE_ROWS * len(groups), step.out.col_blocks),))
                streams.add(column, "C", step.out.buffer, pattern)
            else:
                streams.add(
                    column, "C", step.spare, block_pattern(CORE_ROWS * column, ((len(groups), 0),), CORE_ROWS)
                )
    streams.calls = {
        "attn_q": trips * objects,
        "attn_init": trips,
        "attn_k": trips * keys,
        "gemm_step": trips * keys,
        "attn_finish": trips,
    }
    return streams


def _tasks(step: AttentionStep, columns: int) -> list[list[Task]]:
    """Per column its tasks in order, equally many on each: repeated, unwanted ones fill the last columns."""
    groups = step.q.groups
    full = step.heads // columns
    tasks = [[(columns * m + c, g, True) for m in range(full) for g in range(groups)] for c in range(columns)]
    left = [(head, g, True) for head in range(columns * full, step.heads) for g in range(groups)]
    share = ceil_div(len(left), columns)
    left += [(*left[-1][:2], False)] * (share * columns - len(left)) if left else []
    for c in range(columns):
        tasks[c] += left[c * share : (c + 1) * share]
    return tasks


def _queries(
    step: AttentionStep, columns: int, tasks: list[list[Task]]
) -> Iterator[tuple[int, tuple[tuple[int, int], ...]]]:
    """Per run of trips: first block and loops (in blocks) over the queries of all columns, for core row 0."""
    group_step = CORE_ROWS * step.q.col_blocks
    filler = ((HELD, 0),) if columns < HELD else ()
    full = step.heads // columns
    for m in range(full):
        yield columns * m, ((step.q.groups, group_step), (columns, 1), *filler)
    for trip in range(full * step.q.groups, len(tasks[0])):
        starts = [head + g * group_step for head, g, _ in (tasks[c][trip] for c in range(columns))]
        for start, count, stride in _equal_steps(starts):
            yield start, ((count, stride), *filler)


def _equal_steps(starts: list[int]) -> Iterator[tuple[int, int, int]]:
    """Split a list into runs (start, count, step) of equal, non-negative steps."""
    position = 0
    while position < len(starts):
        count, step = 1, 0
        if position + 1 < len(starts) and starts[position + 1] >= starts[position]:
            step = starts[position + 1] - starts[position]
            while (
                position + count < len(starts) and starts[position + count] - starts[position] == count * step
            ):
                count += 1
        yield starts[position], count, step
        position += count
