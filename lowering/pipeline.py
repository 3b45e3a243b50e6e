"""Region -> Program: plan the steps, place the buffers, write the streams, order the transfers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from torch_xdna.lowering import limits, ops
from torch_xdna.lowering.buffers import ACTIVATIONS, EVERY_FORM, Buffer, Forms
from torch_xdna.lowering.commands.encode import encode
from torch_xdna.lowering.commands.schedule import schedule
from torch_xdna.lowering.errors import LimitError
from torch_xdna.lowering.host_data.fills import HeaderFill, HeaderInput, HeaderTarget
from torch_xdna.lowering.limits import BLOCK_BYTES
from torch_xdna.lowering.program import Placement, Program, StepFacts
from torch_xdna.lowering.steps import placement
from torch_xdna.lowering.steps.kinds import AttentionStep, GemmStep, RowStep, Step, reads, writes
from torch_xdna.lowering.steps.plan import StepList, plan_steps
from torch_xdna.lowering.streams.attention import attention_header, attention_streams
from torch_xdna.lowering.streams.gemm import gemm_header, gemm_streams
from torch_xdna.lowering.streams.rows import row_header, row_streams
from torch_xdna.lowering.streams.split import LONGEST_S, SPLITS, cut
from torch_xdna.lowering.streams.step_streams import PATHS, StepStreams

COLUMN_CHOICES = (1, 2, 4)

# What each kind of step asks of the array. A new kind of step has a line here.
_LOWER: dict[type[Step], Callable[[Any, int], StepStreams]] = {
    GemmStep: gemm_streams,
    AttentionStep: attention_streams,
    RowStep: row_streams,
}
_HEADER: dict[type[Step], Callable[[Any, int], tuple[int, ...]]] = {
    GemmStep: gemm_header,
    AttentionStep: attention_header,
    RowStep: row_header,
}


def lower(
    region: ops.Region,
    *,
    columns: int = limits.COLUMNS.maximum,
    iterated: bool = True,
    split: str | None = None,
    longest_s: float = LONGEST_S,
    forms: Mapping[str, Forms] | None = None,
    headers_with_inputs: bool = False,
) -> Program:
    """The program of a region on 1, 2 or 4 columns. Programs are kept by all arguments.

    `iterated` False writes iterated descriptors out as more transfers: the same bits, a longer stream.
    `split` "layer" or "op" makes a dispatch of each layer or step instead of one of all; in any case dispatches are
    split that are modelled to take longer than `longest_s` (`lowering.streams.split`). The same bits, too.
    `headers_with_inputs` places the steps' headers among the activations instead of the weights (`lowering.lengths`).
    `forms` says which forms each path's ("A", "B", "C") descriptors may have, for tests of single ones.

    Raises `LoweringError` for an op that the array can't run, `LimitError` for an exceeded limit; both say
    which. ValueError for a `split` that there is not.
    """
    if columns not in COLUMN_CHOICES:
        raise LimitError(f"{limits.COLUMNS.name}: programs exist for {COLUMN_CHOICES} columns, not {columns}")
    if split is not None and split not in SPLITS:
        raise ValueError(f"split is {split!r}; it can be None, {' or '.join(map(repr, SPLITS))}")
    chosen = forms or {}
    default = Forms(iterated=iterated)
    allowed = tuple(chosen.get(path, default) for path in PATHS)
    return _lower(region, columns, allowed, split, longest_s, headers_with_inputs)


def steps_and_streams(
    region: ops.Region,
    columns: int = limits.COLUMNS.maximum,
    forms: tuple[Forms, ...] = (Forms(),) * len(PATHS),
    headers_with_inputs: bool = False,
) -> tuple[StepList, Placement, list[StepStreams]]:
    """The first half of `lower`, for those who want to see it: steps with their buffers placed, and what each step
    moves. Raises as `lower` does."""
    planned = plan_steps(region, headers_with_inputs=headers_with_inputs)
    placed = _place(planned)
    return planned, placed, [_limited(_LOWER[type(step)](step, columns), forms) for step in planned.steps]


@lru_cache(maxsize=32)
def _lower(
    region: ops.Region,
    columns: int,
    forms: tuple[Forms, ...],
    split: str | None,
    longest_s: float,
    headers_with_inputs: bool,
) -> Program:
    start = time.perf_counter()
    planned, placed, all_streams = steps_and_streams(region, columns, forms, headers_with_inputs)
    names = [step.name for step in planned.steps]
    parts = cut(planned.steps, all_streams, columns, split=split, longest_s=longest_s)
    scheduled = [
        schedule([all_streams[i] for i in part], [names[i] for i in part], columns) for part in parts
    ]
    commands = [command for part in scheduled for command in part.commands]
    step_of_command = [part[step] for part, made in zip(parts, scheduled) for step in made.steps]
    headers = {step.header: HeaderFill(streams.header) for step, streams in zip(planned.steps, all_streams)}
    return Program(
        name=region.name,
        columns=columns,
        commands=tuple(commands),
        step_of_command=tuple(step_of_command),
        steps=tuple(_facts(planned.steps, all_streams, step_of_command)),
        memory=placed,
        weights=tuple((buffer, filler or headers[buffer]) for buffer, filler in planned.weights),
        inputs=(*planned.inputs, *_header_inputs(planned.steps, all_streams)),
        outputs=tuple(planned.outputs),
        dispatches=tuple(encode(made.commands, device_columns=columns) for made in scheduled),
        generation_seconds=time.perf_counter() - start,
    )


def header_words(step: Step, columns: int) -> tuple[int, ...]:
    """The words of a step's header object."""
    return _HEADER[type(step)](step, columns)


def _header_inputs(steps: list[Step], all_streams: list[StepStreams]) -> list[HeaderInput]:
    """For the headers that lie among the activations."""
    return [
        HeaderInput(HeaderTarget(step.header), streams.header)
        for step, streams in zip(steps, all_streams)
        if step.header.arg == ACTIVATIONS
    ]


def _limited(streams: StepStreams, forms: tuple[Forms, ...]) -> StepStreams:
    """Let each path's patterns make only descriptors of the forms given for it."""
    for (_, path), stream in streams.by_path.items():
        allowed = forms[PATHS.index(path)]
        if allowed != EVERY_FORM:
            stream[:] = [replace(a, pattern=replace(a.pattern, forms=allowed)) for a in stream]
    return streams


def _place(planned: StepList) -> Placement:
    """Set every buffer's offset."""
    weights = [buffer for buffer, _ in planned.weights]
    lifetimes: dict[Buffer, placement.Lifetime] = {}
    for fill in planned.inputs:
        lifetimes[fill.target.buffer] = (-1, -1)
    for step in planned.steps:
        if step.header.arg == ACTIVATIONS:
            lifetimes[step.header] = (-1, len(planned.steps))
    for index, step in enumerate(planned.steps):
        for buffer in (*reads(step), *writes(step)):
            first, last = lifetimes.get(buffer, (index, index))
            lifetimes[buffer] = (min(first, index), max(last, index))
    for output in planned.outputs:
        # results have a place of their own: the host marks it before a run to notice what was not written
        lifetimes[output.matrix.buffer] = (-1, len(planned.steps))
    return Placement(
        BLOCK_BYTES * placement.place_in_order(weights),
        BLOCK_BYTES * placement.place_by_liveness(lifetimes),
        (*weights, *lifetimes),
    )


def _facts(steps: list[Step], all_streams: list[StepStreams], step_of: list[int]) -> list[StepFacts]:
    """`step_of`: per command the step it belongs to."""
    first = [len(step_of)] * len(steps)
    last = [0] * len(steps)
    for index, step in enumerate(step_of):
        first[step] = min(first[step], index)
        last[step] = index + 1
    facts = []
    for index, (described, streams) in enumerate(zip(steps, all_streams)):
        moved = dict.fromkeys("ABC", 0)
        for (_, path), stream in streams.by_path.items():
            moved[path] += sum(4 * access.pattern.words for access in stream)
        commands = (first[index], last[index])
        facts.append(
            StepFacts(
                described.name,
                described.kind,
                described.shape,
                commands,
                moved["A"],
                moved["B"],
                moved["C"],
                streams.trips,
                streams.calls,
            )
        )
    return facts
