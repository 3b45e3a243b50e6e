"""Where the steps of a region are cut into dispatches that run one after another.

Between two dispatches nothing is under way: every transfer of the first was waited for, the cores wait for a header,
intermediate results lie in the activations. So a cut changes no bit; it costs a dispatch and what the next step's
headers and weights would have hidden. Two reasons for it: a machine that fails with many tokens or a long stream
(`split`, a user's choice), and the driver, which kills a run that takes too long (`longest_s`, always).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from torch_xdna.kernels_xdna1 import cycles
from torch_xdna.lowering import limits
from torch_xdna.lowering.errors import LimitError
from torch_xdna.lowering.steps.kinds import GemmStep, RowStep, Step
from torch_xdna.lowering.streams.descriptors import fit
from torch_xdna.lowering.streams.step_streams import StepStreams
from torch_xdna.lowering.time.costs import Costs

SPLITS = ("layer", "op")
SLOWEST_GHZ = 0.8  # of the clocks seen on real machines
MARGIN = 2.0  # the model is no measurement: what it gives twice as long is still not killed
LONGEST_S = limits.RUN_SECONDS.maximum / MARGIN

_LAYER = re.compile(r"(?:[^.]*\.)*?\d+(?=\.|$)")


def cut(
    steps: Sequence[Step],
    all_streams: Sequence[StepStreams],
    columns: int,
    *,
    split: str | None,
    longest_s: float,
) -> list[range]:
    """The steps of each dispatch. `split`: "layer" gives each layer its own (and what lies between layers), "op"
    each step; None as few as there can be. No dispatch is modelled to take longer than `longest_s` seconds.

    Raises LimitError for a step that takes longer by itself.
    """
    starts, spent = [0], 0.0
    for index, (step, streams) in enumerate(zip(steps, all_streams)):
        seconds = modelled_seconds(step, streams, columns)
        if seconds > longest_s:
            raise LimitError(
                f"{limits.RUN_SECONDS.name}: {step.kind} {step.name} ({step.shape}) is modelled to take "
                f"{seconds:.3g} s at {SLOWEST_GHZ} GHz, more than the {longest_s:g} s that are surely below the "
                f"{limits.RUN_SECONDS.maximum} s after which the driver kills a run; give it fewer rows per call or "
                "more columns"
            )
        wanted = split == "op" or (split == "layer" and layer(step.name) != layer(steps[index - 1].name))
        if index and (wanted or spent + seconds > longest_s):
            starts.append(index)
            spent = 0.0
        spent += seconds
    return [range(first, end) for first, end in zip(starts, [*starts[1:], len(steps)])]


def layer(name: str) -> str:
    """`layers.3` of `layers.3.fc1`: up to the first part that is a number; empty where there is none."""
    found = _LAYER.match(name)
    return found.group() if found else ""


def modelled_seconds(step: Step, streams: StepStreams, columns: int, clock_ghz: float = SLOWEST_GHZ) -> float:
    """A step's modelled time without executing it: of its cores or its busiest channel, and of the controller, as if
    nothing of it overlapped, and with the kernels at the slower rates that were assumed before they were rewritten: a
    run that takes too long is killed, and no rate of ours was measured."""
    costs = Costs(clock_ghz, stock_kernels=True)
    variant = step.op if isinstance(step, RowStep) else ""
    # GELU happens in one of two kernels, at the end or, before a residual, in the sums.
    plain = "gemm_finish" if isinstance(step, GemmStep) and step.residual else "gemm_params"
    cores = sum(
        calls
        * ((costs.kernel_cycles(name) if name == plain else _cycles(name, variant)) + costs.object_overhead)
        for name, calls in streams.calls.items()
    )
    words: dict[tuple[int, str], int] = {}
    tasks = 0
    for channel, stream in streams.by_path.items():
        for access in stream:
            words[channel] = words.get(channel, 0) + access.pattern.words
            tasks += len(fit(access.pattern))
    busiest = max(words.values(), default=0) * costs.mm2s_word
    control = tasks * (costs.task_cycles + costs.sync) + 3 * columns * costs.push_cold
    return costs.seconds(max(cores, busiest) + control)


@cache
def _cycles(name: str, variant: str) -> float:
    """A call's modelled cycles: of the variant if the kernel has it, else of its longest."""
    costs = Costs(SLOWEST_GHZ, stock_kernels=True)
    known = [v for kernel, v in cycles.variants() if kernel == name]
    return max(costs.kernel_cycles(name, v) for v in ([variant] if variant in known else known or [""]))
