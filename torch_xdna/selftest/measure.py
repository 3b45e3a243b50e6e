"""Times on the NPU: dispatch latency, bandwidth, syncs, an op's run; and the modelled time of the same program."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from torch_xdna.devices import npu
from torch_xdna.devices.npu import flush
from torch_xdna.devices.npu.buffers import Buffer
from torch_xdna.devices.npu.chip import Npu
from torch_xdna.devices.npu.loaded_program import NpuProgram, Weights
from torch_xdna.devices.npu.stats import NpuStats
from torch_xdna.lowering import lower
from torch_xdna.lowering.ops import Region
from torch_xdna.selftest.cases import Case, add_region

PIPELINED = 16  # clips per batch for the rate
SYNCED = 1 << 20  # bytes


def load(region: Region, device: Npu, *, iterated: bool = True, split: str | None = None) -> NpuProgram:
    return npu.load(device, lower(region, columns=device.columns, iterated=iterated, split=split))


def timed(
    loaded: NpuProgram, inputs: Sequence[np.ndarray], weights: Weights, repeats: int
) -> dict[str, float]:
    """Seconds of a run: `device_s` from submission to its end, `call_s` with packing, syncs and unpacking."""
    device, call = [], []
    for _ in range(repeats):
        before, started = loaded.stats.seconds_waited, time.perf_counter()
        loaded.run([inputs], weights)
        call.append(time.perf_counter() - started)
        device.append(loaded.stats.seconds_waited - before)
    return {
        "device_s": float(np.median(device)),
        "device_least_s": min(device),
        "call_s": float(np.median(call)),
        "runs": repeats,
    }


def dispatch(device: Npu, *, repeats: int, iterated: bool = True) -> dict[str, Any]:
    """The smallest program (one block each of x, y and x + y): what a run costs that computes nothing."""
    case = Case("dispatch", add_region(64, 64))
    loaded = load(case.region, device, iterated=iterated)
    weights = loaded.upload(loaded.program.pack_weights({}))
    loaded.run([case.inputs], weights)
    single = timed(loaded, case.inputs, weights, repeats)
    started = time.perf_counter()
    loaded.run([case.inputs] * PIPELINED, weights)
    return {
        "instructions": loaded.program.words.size,
        "median_s": single["device_s"],
        "least_s": single["device_least_s"],
        "call_median_s": single["call_s"],
        "pipelined_s": (time.perf_counter() - started) / PIPELINED,
        "runs": repeats,
    }


def bandwidth(
    device: Npu, dispatch_s: float, *, quick: bool, repeats: int, iterated: bool = True
) -> dict[str, Any]:
    """Bytes per second between memory and array while adding two matrices, without the dispatch."""
    case = Case("bandwidth", add_region(256 if quick else 1536, 256 if quick else 2048))
    loaded = load(case.region, device, iterated=iterated)
    weights = loaded.upload(loaded.program.pack_weights({}))
    seconds = timed(loaded, case.inputs, weights, repeats)["device_least_s"]
    moved = sum(op.bytes_moved for op in loaded.program.steps)
    return {
        "bytes": moved,
        "device_least_s": seconds,
        "bytes_per_s": moved / max(seconds - dispatch_s, 1e-9) if seconds > dispatch_s else None,
    }


def sync(device: Npu, *, repeats: int) -> dict[str, Any]:
    """CPU seconds until the NPU sees what the host wrote, per MB: as runs do it, and by XRT."""
    context = device.context()
    buffer = Buffer(context.device, SYNCED, context.activations_group, "measuring syncs")

    def seconds_per_mb() -> float:
        found = []
        for i in range(repeats):
            buffer.view[:] = i
            started = time.thread_time()
            buffer.to_device(NpuStats())
            found.append(time.thread_time() - started)
        return float(np.median(found)) * 1e6 / SYNCED

    facts: dict[str, Any] = {"by": flush.chosen().reason, "s_per_mb": seconds_per_mb()}
    buffer.flush = None
    return facts | {"xrt_s_per_mb": seconds_per_mb()}


def modelled_seconds(program: Any, params: Mapping[str, np.ndarray], clock_ghz: float) -> float:
    """Modelled, not measured: the array simulator's clock over the same instruction words, plus
    its dispatches."""
    from torch_xdna.devices.array import Simulator
    from torch_xdna.lowering.overlay import overlay
    from torch_xdna.lowering.time.costs import Costs
    from torch_xdna.lowering.time.estimate import dispatch_seconds

    simulator = Simulator(overlay(program.columns), costs=Costs(clock_ghz=clock_ghz), kernels=False)
    weights, activations = program.pack_weights(params), np.zeros(program.activations_bytes, np.uint8)
    runs = simulator.run_all(program.dispatches, [weights, activations])
    return sum(run.modelled_seconds + dispatch_seconds("single") for run in runs)
