"""Region -> Program: plan the steps, place the buffers, write the streams, order the transfers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from lowering import limits, memory, ops
from lowering.attention import attention_header, attention_work
from lowering.errors import LimitError
from lowering.gemm import gemm_header, gemm_work
from lowering.instructions import encode
from lowering.limits import BLOCK_BYTES
from lowering.packing import HeaderFill
from lowering.plan import Plan, plan
from lowering.program import MemoryPlan, OpFacts, Program
from lowering.rows import row_header, row_work
from lowering.schedule import Scheduled, schedule
from lowering.steps import AttentionStep, Buffer, GemmStep, RowStep, Step, reads, writes
from lowering.streams import EVERY_FORM, Forms
from lowering.work import PATHS, Work

COLUMN_CHOICES = (1, 2, 4)


def lower(
    region: ops.Region,
    *,
    columns: int = limits.COLUMNS.maximum,
    iterated: bool = True,
    forms: Mapping[str, Forms] | None = None,
) -> Program:
    """The program of a region on 1, 2 or 4 columns. Programs are kept by all arguments.

    `iterated` False writes iterated descriptors out as more transfers: the same bits, a longer stream.
    `forms` says which forms each path's ("A", "B", "C") descriptors may have, for tests of single ones.

    Raises `LoweringError` for an op that the array can't run, `LimitError` for an exceeded limit; both say
    which.
    """
    if columns not in COLUMN_CHOICES:
        raise LimitError(f"{limits.COLUMNS.name}: programs exist for {COLUMN_CHOICES} columns, not {columns}")
    chosen = forms or {}
    default = Forms(iterated=iterated)
    return _lower(region, columns, tuple(chosen.get(path, default) for path in PATHS))


@lru_cache(maxsize=32)
def _lower(region: ops.Region, columns: int, forms: tuple[Forms, ...]) -> Program:
    start = time.perf_counter()
    planned = plan(region)
    placed = _place(planned)
    works = [_limited(_work(step, columns), forms) for step in planned.steps]
    scheduled = schedule(works, [step.name for step in planned.steps], columns)
    headers = {step.header: HeaderFill(_header(step, columns)) for step in planned.steps}
    return Program(
        name=region.name,
        columns=columns,
        commands=tuple(scheduled.commands),
        steps=tuple(scheduled.steps),
        ops=tuple(_facts(planned.steps, works, scheduled)),
        memory=placed,
        weights=tuple((buffer, filler or headers[buffer]) for buffer, filler in planned.weights),
        inputs=tuple(planned.inputs),
        outputs=tuple(planned.outputs),
        words=encode(scheduled.commands, device_columns=columns),
        generation_seconds=time.perf_counter() - start,
    )


def _work(step: Step, columns: int) -> Work:
    if isinstance(step, GemmStep):
        return gemm_work(step, columns)
    if isinstance(step, AttentionStep):
        return attention_work(step, columns)
    assert isinstance(step, RowStep)
    return row_work(step, columns)


def _limited(work: Work, forms: tuple[Forms, ...]) -> Work:
    """Let each path's patterns make only descriptors of the forms given for it."""
    for (_, path), stream in work.streams.items():
        allowed = forms[PATHS.index(path)]
        if allowed != EVERY_FORM:
            stream[:] = [replace(a, pattern=replace(a.pattern, forms=allowed)) for a in stream]
    return work


def _header(step: Step, columns: int) -> tuple[int, ...]:
    if isinstance(step, GemmStep):
        return gemm_header(step, columns)
    if isinstance(step, AttentionStep):
        return attention_header(step, columns)
    assert isinstance(step, RowStep)
    return row_header(step, columns)


def _place(planned: Plan) -> MemoryPlan:
    """Set every buffer's offset."""
    weights = [buffer for buffer, _ in planned.weights]
    lifetimes: dict[Buffer, memory.Lifetime] = {}
    for fill in planned.inputs:
        lifetimes[fill.target.buffer] = (-1, -1)
    for index, step in enumerate(planned.steps):
        for buffer in (*reads(step), *writes(step)):
            first, last = lifetimes.get(buffer, (index, index))
            lifetimes[buffer] = (min(first, index), max(last, index))
    for output in planned.outputs:
        # results have a place of their own: the host marks it before a run to notice what was not written
        lifetimes[output.matrix.buffer] = (-1, len(planned.steps))
    return MemoryPlan(
        BLOCK_BYTES * memory.place_in_order(weights),
        BLOCK_BYTES * memory.place_by_liveness(lifetimes),
        (*weights, *lifetimes),
    )


def _facts(steps: list[Step], works: list[Work], scheduled: Scheduled) -> list[OpFacts]:
    first = [len(scheduled.commands)] * len(steps)
    last = [0] * len(steps)
    for index, step in enumerate(scheduled.steps):
        first[step] = min(first[step], index)
        last[step] = index + 1
    facts = []
    for index, (described, work) in enumerate(zip(steps, works)):
        moved = dict.fromkeys("ABC", 0)
        for (_, path), stream in work.streams.items():
            moved[path] += sum(4 * access.pattern.words for access in stream)
        commands = (first[index], last[index])
        facts.append(
            OpFacts(
                described.name,
                described.kind,
                described.shape,
                commands,
                moved["A"],
                moved["B"],
                moved["C"],
                work.trips,
                work.calls,
            )
        )
    return facts
