"""`python -m torch_xdna.devices.array MODEL`: a whole Whisper encoder on the simulated array, against the emulator.

Random weights of trained-like size. Prints how long the simulation takes, the modelled time, and the cosine of every
layer's result. `whisper-base` takes about a minute.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from torch_xdna.devices.array.device import ArrayDevice
from torch_xdna.devices.emulator import EmulatorDevice
from torch_xdna.lowering import ops
from torch_xdna.lowering.whisper import encoder_config, encoder_region


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m torch_xdna.devices.array", description=__doc__)
    parser.add_argument("model", help="tiny, base, small, medium, large or a Hugging Face name of one")
    parser.add_argument("--columns", type=int, choices=(1, 2, 4), default=4)
    parser.add_argument("--context", type=int, default=1500, help="rows of the encoder's output")
    chosen = parser.parse_args()
    region = with_layers(encoder_region(encoder_config(chosen.model), chosen.context))
    rng = np.random.default_rng(0)
    params = {p.name: _parameter(rng, p) for p in region.params}
    inputs = [torch.randn(1, v.rows, v.cols) for v in map(region.value, region.inputs)]
    _, emulated = _run(EmulatorDevice(), region, params, inputs)
    executable, simulated = _run(ArrayDevice(chosen.columns), region, params, inputs)
    stats, program = executable.stats, executable.program
    print(f"{program.instruction_bytes:,} bytes of instructions, {stats.kernel_calls:,} kernel calls, "
          f"dispatches: {stats.dispatches}, {stats.overlay_changes} overlay changes")  # fmt: skip
    print(
        f"modelled at {stats.clock_ghz} GHz: {1e3 * stats.modelled_seconds:.1f} ms for one clip, without dispatch"
    )
    for i, (ours, theirs) in enumerate(zip(simulated, emulated)):
        cosine = torch.nn.functional.cosine_similarity(ours.double().ravel(), theirs.double().ravel(), dim=0)
        print(f"{f'layer {i}' if i < len(simulated) - 1 else 'end'}: cosine {cosine:.7f}")


def _run(
    device: Any, region: ops.Region, params: dict[str, torch.Tensor], inputs: list[torch.Tensor]
) -> tuple[Any, list[torch.Tensor]]:
    """The executable and its outputs; prints how long the run took."""
    executable = device.prepare(region)
    packed = executable.pack(params)
    start = time.perf_counter()
    outputs = executable.run(inputs, packed)
    print(f"{device.name}: {time.perf_counter() - start:.1f} s")
    return executable, outputs


def with_layers(region: ops.Region) -> ops.Region:
    """The region with every layer's result as an output, before its own."""
    ends = tuple(op.out for op in region.ops if op.name.endswith(".fc2"))
    outputs = (*ends, *region.outputs)
    return ops.Region(region.values, region.inputs, outputs, region.params, region.ops, region.name)


def _parameter(rng: np.random.Generator, param: ops.Param) -> torch.Tensor:
    scale = np.prod(param.shape[1:]) ** -0.5 if len(param.shape) > 1 else 0.5
    return torch.from_numpy((rng.standard_normal(param.shape) * scale).astype(np.float32))


if __name__ == "__main__":
    main()
