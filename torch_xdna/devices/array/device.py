"""`device="array"`: regions run as instruction words on the simulated array, one dispatch per clip unless split.

The only module of the package that knows torch, and only where tensors come and go: numpy's door does without.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torch_xdna.devices.array.simulator import DEFAULT_CLOCK_GHZ, RunStats, Simulator
from torch_xdna.devices.base import Stats
from torch_xdna.devices.npu import overlay as overlay_file
from torch_xdna.errors import DeviceError
from torch_xdna.lowering import lower, ops
from torch_xdna.lowering.errors import LimitError
from torch_xdna.lowering.lengths import lower_length
from torch_xdna.lowering.overlay import overlay as describe
from torch_xdna.lowering.overlay.variants import FULL
from torch_xdna.lowering.program import Program
from torch_xdna.lowering.time.costs import Costs

if TYPE_CHECKING:
    from torch import Tensor

POISON = 0xFF  # what device memory holds before anything was written: NaN in bf16 and in fp32


@dataclass
class ArrayStats(Stats):
    """Sums over the runs of an executable; `cycles` and `seconds` are modelled, at `clock_ghz`."""

    cycles: float = 0.0
    kernel_calls: int = 0
    bytes_moved: int = 0
    clock_ghz: float = DEFAULT_CLOCK_GHZ

    @property
    def modelled_seconds(self) -> float:
        return self.cycles / self.clock_ghz * 1e-9


class ArrayDevice:
    """One simulated array, configured once with the overlay for `columns` columns. `overlay`: path of a built xclbin,
    to simulate what that one can do; by default the overlay that can do everything.

    Raises DeviceError if the kernels can't be compiled here or no overlay has that many columns.
    """

    name = "array"

    def __init__(
        self,
        columns: int = 4,
        clock_ghz: float = DEFAULT_CLOCK_GHZ,
        iterated: bool = True,
        overlay: str | None = None,
        split: str | None = None,
    ):
        self.variant = overlay_file.variant_of(Path(overlay), columns=columns) if overlay else FULL
        try:
            self.simulator = Simulator(describe(columns, self.variant), costs=Costs(clock_ghz=clock_ghz))
        except LimitError as error:
            raise DeviceError(str(error)) from error
        self.columns, self.iterated, self.split = columns, iterated, split
        self.lock = threading.Lock()  # there is one array

    def prepare(self, region: ops.Region) -> ArrayExecutable:
        program = lower(region, columns=self.columns, iterated=self.iterated, split=self.split)
        self.variant.check(op.kind for op in program.steps)
        return ArrayExecutable(self, program)

    def prepare_length(self, region: ops.Region, lengths: frozenset[int]) -> ArrayExecutable:
        program = lower_length(
            region, lengths, columns=self.columns, iterated=self.iterated, split=self.split
        )
        self.variant.check(op.kind for op in program.steps)
        return ArrayExecutable(self, program)


class ArrayExecutable:
    """A region's program on an `ArrayDevice`."""

    def __init__(self, device: ArrayDevice, program: Program):
        self.device, self.program = device, program
        self.stats = ArrayStats(clock_ghz=device.simulator.costs.clock_ghz)

    def pack(self, params: Mapping[str, Tensor]) -> np.ndarray:
        """Kernel argument 0."""
        return self.program.pack_weights({name: _numpy(tensor) for name, tensor in params.items()})

    def run(self, inputs: Sequence[Tensor], packed: np.ndarray) -> list[Tensor]:
        """The program's dispatches per clip; fp32 (batch, rows, cols) per output."""
        import torch

        batch = [_numpy(tensor) for tensor in inputs]
        clips = [self.run_clip([value[i] for value in batch], packed) for i in range(len(batch[0]))]
        return [torch.from_numpy(np.stack(values)) for values in zip(*clips)]

    def run_clip(self, inputs: Sequence[np.ndarray], weights: np.ndarray) -> list[np.ndarray]:
        """One clip, fp32 (rows, cols) per input and output; `weights` as `Program.pack_weights` makes them."""
        program, simulator = self.program, self.device.simulator
        activations = np.full(program.activations_bytes, POISON, dtype=np.uint8)
        program.pack_inputs(inputs, activations)
        with self.device.lock:
            before = max(simulator.configurations, 1)  # the first one is no change
            runs = simulator.run_all(
                program.dispatches,
                [weights, activations],
                [None, program.input_ranges],
                [[], program.result_ranges],
            )
            self.stats.overlay_changes += simulator.configurations - before
            for run in runs:
                self._count(run)
        return program.unpack_outputs(activations)

    def _count(self, run: RunStats) -> None:
        self.stats.dispatches += 1
        self.stats.cycles += run.cycles
        self.stats.kernel_calls += run.kernel_calls
        self.stats.bytes_moved += run.bytes_moved


def _numpy(tensor: Tensor) -> np.ndarray:
    import torch

    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()
