"""Programs of a region whose number of rows changes from call to call: streams once per bucket, headers per call.

Rows come in blocks, so the streams of a bucket (rows rounded up to whole blocks) are those of each of its lengths. What
a length itself changes are words of headers (valid keys, rows that are written as zeros) and how the host fills inputs
and reads results. So the headers of such a program lie among the activations, where the host writes them with each
call's inputs; the weights are the same for all lengths, and packed once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch_xdna.lowering import ops
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.host_data.blocks import blocks_of
from torch_xdna.lowering.host_data.fills import HeaderInput, OutputTake
from torch_xdna.lowering.limits import BLOCK
from torch_xdna.lowering.pipeline import header_words, lower
from torch_xdna.lowering.program import Program
from torch_xdna.lowering.steps.plan import plan_steps


def lower_length(region: ops.Region, lengths: frozenset[int], **options: Any) -> Program:
    """The program of a region at one length; `lengths`: the values whose rows change. Programs whose regions differ by
    these rows take each other's packed weights. Options and errors: those of `lowering.lower`."""
    bucket = replace(region, values=tuple(_rounded(v) if v.id in lengths else v for v in region.values))
    program = lower(bucket, headers_with_inputs=True, **options)
    planned = plan_steps(region, headers_with_inputs=True)
    words = [header_words(step, program.columns) for step in planned.steps]
    headers = [fill for fill in program.inputs if isinstance(fill, HeaderInput)]
    if len(words) != len(headers) or len(planned.inputs) + len(headers) != len(program.inputs):
        raise LoweringError(
            f"region {region.name} takes other steps at other lengths: compile with dynamic=False"
        )
    fills = iter(words)
    inputs = [replace(f, words=next(fills)) if isinstance(f, HeaderInput) else f for f in program.inputs]
    outputs = [
        OutputTake(take.matrix, region.value(v).rows, take.cols)
        for take, v in zip(program.outputs, region.outputs)
    ]
    return replace(program, inputs=tuple(inputs), outputs=tuple(outputs))


def _rounded(value: ops.Value) -> ops.Value:
    return replace(value, rows=BLOCK * blocks_of(value.rows))
