"""Measured time on this machine: a region on a device, with random weights, per op where the device says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import torch

from lowering.ops import Region
from torch_xdna.devices import select
from torch_xdna.profile.model import OpProfile
from torch_xdna.profile.ranges import PREFIX

RUNS = 3


@dataclass(frozen=True)
class HostTimes:
    """Measured seconds of one clip: the median of the runs, and per op one run under the profiler."""

    seconds: float
    ops: dict[str, float] = field(default_factory=dict)


def host_times(region: Region, device: str) -> HostTimes:
    """Run one clip of noise through `region` on `device`, first run not counted. Raises DeviceError."""
    generator = torch.Generator().manual_seed(0)
    executable = select(device).prepare(region)
    params = {p.name: 0.02 * torch.randn(p.shape, generator=generator) for p in region.params}
    shapes = [(region.value(i).rows, region.value(i).cols) for i in region.inputs]
    inputs = [torch.randn(1, rows, cols, generator=generator) for rows, cols in shapes]
    packed = executable.pack(params)
    executable.run(inputs, packed)
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        executable.run(inputs, packed)
        seconds.append(time.perf_counter() - start)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        executable.run(inputs, packed)
    ops = {
        event.key.removeprefix(PREFIX): event.cpu_time_total * 1e-6
        for event in profiler.key_averages()
        if event.key.startswith(PREFIX)
    }
    return HostTimes(median(seconds), ops)


def with_host_times(ops: Sequence[OpProfile], measured: Sequence[HostTimes]) -> list[OpProfile]:
    """Put the measured time of every op beside its modelled one; joined ops (`q_proj+k_proj`) get the sum."""
    known: dict[str, float] = {}
    for times in measured:
        known.update(times.ops)
    return [replace(op, host_seconds=_sum(known, op.name)) for op in ops]


def _sum(known: dict[str, float], name: str) -> float | None:
    first, *others = name.split("+")
    prefix = first.rpartition(".")[0]
    names = [first, *(f"{prefix}.{other}" for other in others)]
    found = [known[n] for n in names if n in known]
    return sum(found) if len(found) == len(names) else None
