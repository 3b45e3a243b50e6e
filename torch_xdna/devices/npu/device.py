"""`device="npu"`: the backend's door to the runtime, and the only file here that knows torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_xdna.devices import npu
from torch_xdna.devices.npu.loaded_program import NpuProgram, Weights
from torch_xdna.devices.npu.stats import NpuStats
from torch_xdna.lowering import lower
from torch_xdna.lowering.lengths import lower_length
from torch_xdna.lowering.ops import Region
from torch_xdna.lowering.program import Program


class NpuDevice:
    """The NPU of this machine, opened with the overlay for `columns` columns (`overlay`: path of an xclbin,
    None for the built one). Raises DeviceError, with a remedy, if it can't be used."""

    name = "npu"

    def __init__(
        self,
        columns: int = 4,
        overlay: str | None = None,
        iterated: bool = True,
        split: str | None = None,
    ) -> None:
        self.columns, self.iterated, self.split = columns, iterated, split
        self.npu = npu.runtime(overlay, columns=columns)
        self.variant = self.npu.variant

    def prepare(self, region: Region) -> NpuExecutable:
        program = lower(region, columns=self.columns, iterated=self.iterated, split=self.split)
        return NpuExecutable(npu.load(self.npu, program))

    def prepare_length(self, region: Region, lengths: frozenset[int]) -> NpuExecutable:
        program = lower_length(
            region, lengths, columns=self.columns, iterated=self.iterated, split=self.split
        )
        return NpuExecutable(npu.load(self.npu, program))


class NpuExecutable:
    """A region's program on the NPU; one dispatch per clip unless it is split. Copies share it; it can't be pickled."""

    def __init__(self, loaded: NpuProgram) -> None:
        self.loaded = loaded

    @property
    def program(self) -> Program:
        return self.loaded.program

    @property
    def stats(self) -> NpuStats:
        """Summed over the runs; a context that had to be opened anew counts as a change of overlay."""
        return self.loaded.stats

    def pack(self, params: Mapping[str, Tensor]) -> Weights:
        """The weights in the NPU's order, uploaded; they stay there until the result is dropped."""
        packed = self.program.pack_weights(
            {name: _floats(tensor).contiguous().numpy() for name, tensor in params.items()}
        )
        return self.loaded.upload(packed)

    def run(self, inputs: Sequence[Tensor], packed: Weights) -> list[Tensor]:
        """fp32 (batch, rows, cols) per output. Raises NpuError after a failed run and its failed retry."""
        batch = [_floats(tensor).numpy() for tensor in inputs]  # packing takes any strides
        clips = [[value[i] for value in batch] for i in range(len(batch[0]))]
        outputs = list(zip(*self.loaded.run(clips, packed)))
        if len(clips) == 1:
            return [torch.from_numpy(clip)[None] for (clip,) in outputs]
        return [torch.from_numpy(np.stack(of_clips)) for of_clips in outputs]

    def __deepcopy__(self, memo: dict) -> NpuExecutable:
        return self

    def __reduce__(self) -> Any:
        return self.loaded.__reduce__()


def _floats(tensor: Tensor) -> Tensor:
    """fp32, sharing memory with the tensor where it already is."""
    return tensor.detach().to("cpu", torch.float32)
