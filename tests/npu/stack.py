"""Inside the sandbox: the array simulator plays the NPU behind the real command packets."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import regions
from sandbox import inside

from torch_xdna.devices import npu
from torch_xdna.devices.array import Simulator
from torch_xdna.devices.npu import flush
from torch_xdna.lowering import lower
from torch_xdna.lowering.overlay import overlay


def simulate(columns: int) -> Simulator:
    """Let the array simulator, configured with the overlay, execute every run from now on."""
    simulator = Simulator(overlay(columns))

    def execute(words: np.ndarray, arguments: list[np.ndarray]) -> None:
        simulator.run(words, arguments)

    inside.play(execute)
    return simulator


def captured(
    xclbin: str, case: str, results: str, columns: int = 4, split: str | None = None
) -> dict[str, Any]:
    """Run a captured region (pickle: region, params, clips) on the NPU runtime; outputs go to `results`."""
    region, params, clips = pickle.loads(Path(case).read_bytes())
    simulator = simulate(columns)
    chip = npu.runtime(xclbin, columns=columns, run_timeout=300.0)
    program = npu.load(chip, lower(region, columns=columns, split=split))
    weights = program.upload(program.program.pack_weights(params))
    started = time.monotonic()
    outputs = program.run(clips, weights)
    seconds = time.monotonic() - started
    np.savez(results, *[output for clip in outputs for output in clip])
    return {
        "words": program.program.instruction_bytes // 4,
        "dispatches": program.stats.dispatches,
        "failed": program.stats.failed_runs,
        "configurations": simulator.configurations,
        "simulated_runs": simulator.runs,
        "seconds": seconds,
    }


def host_cost(xclbin: str, calls: int = 15) -> dict[str, Any]:
    """What a whisper-base encoder call costs the host when the array answers at once."""
    region = regions.encoder(6, 512, 1500)
    program = lower(region)

    def answer(words: np.ndarray, arguments: list[np.ndarray]) -> None:
        for offset, size in program.result_ranges:
            arguments[1][offset : offset + size] = 0

    inside.play(answer)
    loaded = npu.load(npu.runtime(xclbin), program)
    weights = loaded.upload(np.zeros(program.weights_bytes, np.uint8))
    clip = regions.inputs(region)
    loaded.run([clip], weights)  # allocates, uploads
    syncing = 0.0
    buffer = next(iter(loaded._slots)).activations
    to_device, from_device = buffer.to_device, buffer.from_device

    def timed(call: Any) -> Any:
        def wrapped(*args: Any) -> None:
            nonlocal syncing
            started = time.thread_time()
            call(*args)
            syncing += time.thread_time() - started

        return wrapped

    buffer.to_device, buffer.from_device = timed(to_device), timed(from_device)  # type: ignore[method-assign]
    before = loaded.stats.copy()
    cpu, synced, wall = [], [], []
    for _ in range(calls):
        syncing = 0.0
        started, began = time.monotonic(), time.thread_time()
        loaded.run([clip], weights)
        cpu.append(time.thread_time() - began)
        wall.append(time.monotonic() - started)
        synced.append(syncing)
    spent = loaded.stats - before
    return {
        "by": flush.chosen().reason,
        "cpu_ms": 1e3 * float(np.median(cpu)),
        "sync_ms": 1e3 * float(np.median(synced)),
        "least_cpu_ms": 1e3 * min(cpu),
        "least_sync_ms": 1e3 * min(synced),
        "wall_ms": 1e3 * float(np.median(wall)),
        "dispatches": spent.dispatches / calls,
        "overlay_changes": spent.overlay_changes / calls,
        "bytes_to_device": spent.bytes_to_device / calls,
        "bytes_from_device": spent.bytes_from_device / calls,
    }
