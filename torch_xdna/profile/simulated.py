"""Time per op from the array simulator: the program's own words, executed without data.

An op lasts from the end of the op before until its last result is in memory; what a later op's headers and
weights do in the meantime is already hidden. The trace says who was busy then.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from torch_xdna import lowering
from torch_xdna.devices.array.simulator import RunStats, Simulator
from torch_xdna.lowering.ops import Region
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.time import Costs

_COMMAND = re.compile(r"command (\d+)")
_KERNEL = re.compile(r"(\w+)\(")
# What a core does, by kernel, in words for people; the rest is `other kernels`.
WORK = {
    "gemm_step": "matrix products",
    "attn_k": "softmax",  # without its product of queries and keys
    "gemm_params": "bias and GELU",
    "gemm_init": "clearing, residual, rounding",
    "gemm_residual": "clearing, residual, rounding",
    "gemm_finish": "clearing, residual, rounding",
    "row_stats": "row operations",
    "row_apply": "row operations",
}
WAITING = "waiting"
Span = tuple[str, str, float, float]  # track, name, start, end in core cycles


@dataclass(frozen=True)
class Simulated:
    """A program's run. `ends`: cycles at which each op's last result was written; `bounds`: per op, cycles
    of the
    busiest core and of the busiest channel or stream; `busy`: mean share of the cores' time in kernels."""

    program: Any
    stats: RunStats
    ends: list[float]
    bounds: list[dict[str, float]]
    busy: list[float]

    def work(self, costs: Costs) -> dict[str, float]:
        """Cycles of a mean core by what it does (`WORK`), waiting included; they add up to the whole run."""
        found: dict[str, float] = defaultdict(float)
        product, rounding, cores = costs.kernel_cycles("gemm_step"), costs.kernel_cycles("gemm_finish"), set()
        for track, name, start, end in self.spans:
            if not is_core(track):
                continue
            cores.add(track)
            called = _KERNEL.search(name)
            kernel = called.group(1) if called else ""
            found[WORK.get(kernel, "other kernels")] += end - start
            if kernel == "gemm_finish" and end - start > 2 * rounding:  # GELU on the way
                found[WORK["gemm_params"]] += end - start - rounding
                found[WORK["gemm_finish"]] -= end - start - rounding
            if kernel == "attn_k":
                found[WORK["gemm_step"]] += product
                found[WORK["attn_k"]] -= product
        mean = {name: cycles / len(cores) for name, cycles in found.items()}
        mean[WAITING] = max(0.0, max(self.ends) - sum(mean.values()))
        return dict(sorted(mean.items(), key=lambda item: -item[1]))

    @property
    def spans(self) -> list[Span]:
        assert self.stats.trace is not None
        return self.stats.trace.spans


def simulate(region: Region, columns: int, costs: Costs) -> Simulated:
    """Lower `region` and run its words through the simulator for their time; nothing is computed."""
    program, stats = _run(region, columns, costs, trace=True)
    assert stats.trace is not None
    ends = _ends(program, stats.trace.spans)
    bounds, busy = _busy(stats.trace.spans, ends)
    return Simulated(program, stats, ends, bounds, busy)


def simulated_seconds(region: Region, columns: int, costs: Costs) -> float:
    """The modelled duration alone, without a dispatch: no trace, half the time and memory."""
    return _run(region, columns, costs, trace=False)[1].modelled_seconds


def _run(region: Region, columns: int, costs: Costs, trace: bool) -> tuple[Any, RunStats]:
    # In one dispatch whatever it takes: a trace is of one stream, and what splitting costs is the dispatches.
    program = lowering.lower(region, columns=columns, longest_s=math.inf)
    simulator = Simulator(overlay(columns), costs=costs, kernels=False)
    weights = program.pack_weights(_Zeros(region))
    activations = np.zeros(program.activations_bytes, np.uint8)
    return program, simulator.run(program.words, [weights, activations], trace=trace)


class _Zeros(Mapping[str, np.ndarray]):
    """Every parameter as zeros that take no memory: headers and flags are what the time depends on."""

    def __init__(self, region: Region):
        self.shapes = {param.name: param.shape for param in region.params}

    def __getitem__(self, name: str) -> np.ndarray:
        return np.broadcast_to(np.float32(0), self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def _ends(program: Any, spans: list[Span]) -> list[float]:
    ends = [0.0] * len(program.steps)
    for track, name, _, end in spans:
        found = _COMMAND.search(name) if "S2MM" in track else None
        if found:
            step = program.step_of_command[int(found.group(1))]
            ends[step] = max(ends[step], end)
    return ends


def _busy(spans: list[Span], ends: list[float]) -> tuple[list[dict[str, float]], list[float]]:
    """Per op: cycles of its busiest core and channel, and the mean share of its time in kernels."""
    order = sorted(range(len(ends)), key=ends.__getitem__)
    edges = np.array([ends[i] for i in order])
    cycles: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(ends)))
    for track, _, start, end in spans:
        place = int(np.searchsorted(edges, (start + end) / 2))
        if place < len(order):
            cycles[track][order[place]] += end - start
    cores = np.array([v for track, v in cycles.items() if is_core(track)])
    channels = np.array([v for track, v in cycles.items() if not is_core(track)])
    starts = np.concatenate([[0.0], edges[:-1]])
    lengths = np.zeros(len(ends))
    lengths[order] = edges - starts
    bounds = [
        {"compute": float(cores[:, i].max()), "stream": float(channels[:, i].max())} for i in range(len(ends))
    ]
    return bounds, [float(cores[:, i].mean() / lengths[i]) if lengths[i] else 0.0 for i in range(len(ends))]


def is_core(track: str) -> bool:
    """Whether a trace's track is a core; the others are shim channels and streams."""
    return track.startswith("core")
