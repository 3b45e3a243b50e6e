"""Buffers that host and NPU share. The host reads and writes them in place; `sync` makes each see the other's
bytes.

Facts about pyxrt that shape this: only `host_only` (data) and `cacheable` (instructions) buffers work on this
chip; `bo.read` copies and `bo.write` of a strided array writes other bytes without complaint, so neither is
used.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from torch_xdna.devices.npu import binding
from torch_xdna.devices.npu.errors import NpuMemory, translate
from torch_xdna.devices.npu.stats import NpuStats

PAGE = 4096  # bytes; buffers are whole pages

Range = tuple[int, int]  # byte offset, byte size

_live: weakref.WeakSet[Buffer] = weakref.WeakSet()


def live() -> list[Buffer]:
    """Every buffer of this process."""
    return list(_live)


class Buffer:
    """One buffer object and its bytes as `view` (uint8). The view must not outlive the buffer; keep the
    buffer."""

    def __init__(self, device: Any, size: int, group: int, what: str, *, instructions: bool = False) -> None:
        xrt = binding.load()
        kind = xrt.bo.cacheable if instructions else xrt.bo.host_only
        self.size = size
        pages = -(-max(size, 1) // PAGE) * PAGE
        try:
            self.bo = xrt.bo(device, pages, kind, group)
        except (RuntimeError, MemoryError) as error:
            raise translate(error, f"allocating {size:,} bytes for {what}", NpuMemory) from error
        _live.add(self)
        self.view = np.frombuffer(self.bo.map(), np.uint8, size)
        self._to, self._from = (
            xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE,
            xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE,
        )

    def fill(self, content: np.ndarray) -> None:
        """Copy an array's bytes to the start of the buffer, contiguous or not (no sync)."""
        raw = np.ascontiguousarray(content).view(np.uint8).reshape(-1)
        self.view[: raw.size] = raw

    def to_device(self, stats: NpuStats, ranges: Iterable[Range] | None = None) -> None:
        for offset, size in merged(ranges, self.size):
            self.bo.sync(self._to, size, offset)
            stats.bytes_to_device += size

    def from_device(self, stats: NpuStats, ranges: Iterable[Range] | None = None) -> None:
        for offset, size in merged(ranges, self.size):
            self.bo.sync(self._from, size, offset)
            stats.bytes_from_device += size


def merged(ranges: Iterable[Range] | None, size: int) -> list[Range]:
    """Ranges in order, touching and overlapping ones as one; None is all `size` bytes."""
    if ranges is None:
        return [(0, size)]
    out: list[Range] = []
    for offset, length in sorted(ranges):
        if out and offset <= sum(out[-1]):
            out[-1] = (out[-1][0], max(sum(out[-1]), offset + length) - out[-1][0])
        elif length:
            out.append((offset, length))
    return out
