"""Measured time on this machine: a region on a device, with random weights, per op where the device says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import torch

from torch_xdna.devices import Executable, select
from torch_xdna.devices.base import counted
from torch_xdna.devices.profiler_range import PREFIX, device_range
from torch_xdna.lowering.ops import Region
from torch_xdna.profile.model import OpProfile

RUNS = 3
_REGION = "profiled region"


@dataclass(frozen=True)
class HostTimes:
    """Measured seconds of one clip: the median of the runs, and its parts (see `_shares`). `counts`: what one clip
    asked of the device (see `torch_xdna.devices.base.counted`), and the CPU time of the thread that asked."""

    seconds: float
    ops: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)


def host_times(region: Region, device: str) -> HostTimes:
    """Run one clip of noise through `region` on `device`, first run not counted. Raises DeviceError."""
    generator = torch.Generator().manual_seed(0)
    executable = select(device).prepare(region)
    params = {p.name: 0.02 * torch.randn(p.shape, generator=generator) for p in region.params}
    shapes = [(region.value(i).rows, region.value(i).cols) for i in region.inputs]
    inputs = [torch.randn(1, rows, cols, generator=generator) for rows, cols in shapes]
    packed = executable.pack(params)
    executable.run(inputs, packed)
    seconds, cpu_seconds = [], []
    stats = [executable.stats] if hasattr(executable, "stats") else []
    before = counted(stats)
    for _ in range(RUNS):
        start, began = time.perf_counter(), time.thread_time()
        executable.run(inputs, packed)
        cpu_seconds.append(time.thread_time() - began)
        seconds.append(time.perf_counter() - start)
    counts = {name: (count - before[name]) / RUNS for name, count in counted(stats).items()}
    if counts:
        counts["cpu_seconds"] = median(cpu_seconds)
    total = median(seconds)
    return HostTimes(total, _shares(executable, inputs, packed, total), counts)


def _shares(
    executable: Executable, inputs: list[torch.Tensor], packed: object, total: float
) -> dict[str, float]:
    """`total` divided among the ops as one profiled run divides the time of all its threads."""
    every_thread = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.profiler.profile(activities=activities, experimental_config=every_thread) as profiler,
        device_range(_REGION),
    ):
        executable.run(inputs, packed)
    times = {
        event.key.removeprefix(PREFIX): event.cpu_time_total
        for event in profiler.key_averages()
        if event.key.startswith(PREFIX) and event.key != PREFIX + _REGION
    }
    sum_of_threads = sum(times.values())
    return {name: total * value / sum_of_threads for name, value in times.items()}


def with_host_times(ops: Sequence[OpProfile], measured: Sequence[HostTimes]) -> list[OpProfile]:
    """Put the measured time of every op beside its modelled one, where the device named the op.

    An op that is several steps on the array (`conv1 input`, `conv1 even rows`, ...) is one on the host: its time
    stands beside the last of them.
    """
    known: dict[str, float] = {}
    for times in measured:
        known.update(times.ops)
    steps = {op.name for op in ops}
    for step in steps - known.keys():
        name = step.partition(" ")[0]
        if name in known and name not in steps:
            last = [op.name for op in ops if op.name.partition(" ")[0] == name][-1]
            known[last] = known.pop(name)
    return [replace(op, host_seconds=known.get(op.name)) for op in ops]
