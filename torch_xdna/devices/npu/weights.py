"""Packed weights on the device, where they stay for all runs."""

from __future__ import annotations

import zlib

import numpy as np

from torch_xdna.devices.npu.buffers import Buffer
from torch_xdna.devices.npu.context import Context
from torch_xdna.devices.npu.errors import NpuMemory
from torch_xdna.devices.npu.stats import NpuStats


class Weights:
    """One set of packed weights on the device. After the context was rebuilt they move to a buffer of the new
    one; a checksum makes sure that the failed run did not write into them."""

    def __init__(self, context: Context, packed: np.ndarray, stats: NpuStats) -> None:
        self.size = packed.nbytes
        self._checksum = zlib.crc32(packed.data)
        self._generation = context.generation
        self._buffer = self._place(context, packed, stats)

    def on(self, context: Context, stats: NpuStats) -> Buffer:
        """The buffer that a run in this context may read."""
        if context.generation != self._generation:
            if zlib.crc32(self._buffer.view.data) != self._checksum:
                raise NpuMemory("a failed run damaged the model's weights in memory; compile the model again")
            self._buffer = self._place(context, self._buffer.view, stats)
            self._generation = context.generation
        return self._buffer

    @staticmethod
    def _place(context: Context, packed: np.ndarray, stats: NpuStats) -> Buffer:
        buffer = Buffer(context.device, packed.nbytes, context.weights_group, "the weights")
        buffer.fill(packed)
        buffer.to_device(stats)
        return buffer
