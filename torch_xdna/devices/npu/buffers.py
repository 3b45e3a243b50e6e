"""Buffers that host and NPU share. The host reads and writes them in place; syncs make each see the other's
bytes (`flush` says how).

Facts about pyxrt that shape this: only `host_only` (data) and `cacheable` (instructions) buffers work on this
chip; `bo.read` copies and `bo.write` of a strided array writes other bytes without complaint, so neither is
used.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from torch_xdna.devices.npu import binding, flush
from torch_xdna.devices.npu.errors import NpuMemory, translate
from torch_xdna.devices.npu.stats import NpuStats

PAGE = 4096  # bytes; buffers are whole pages

Range = tuple[int, int]  # byte offset, byte size

_live: weakref.WeakSet[Buffer] = weakref.WeakSet()


def live() -> list[Buffer]:
    """Every buffer of this process."""
    return list(_live)


class Ranges:
    """Byte ranges of a buffer, put in order once for many syncs; touching and overlapping ones are one."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        parts: list[Range] = []
        for offset, length in sorted(ranges):
            if parts and offset <= sum(parts[-1]):
                parts[-1] = (parts[-1][0], max(sum(parts[-1]), offset + length) - parts[-1][0])
            elif length:
                parts.append((offset, length))
        self.parts = parts
        self.table = np.array(parts, np.int64).reshape(-1, 2)
        self.size = sum(length for _, length in parts)


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
        self._address, self._whole = self.view.ctypes.data, Ranges([(0, size)])
        self.flush = None if instructions else flush.chosen().ranges  # those are synced once
        self._to, self._from = (
            xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE,
            xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE,
        )

    def fill(self, content: np.ndarray) -> None:
        """Copy an array's bytes to the start of the buffer, contiguous or not (no sync)."""
        raw = np.ascontiguousarray(content).view(np.uint8).reshape(-1)
        self.view[: raw.size] = raw

    def to_device(self, stats: NpuStats, ranges: Ranges | None = None) -> None:
        """Let the NPU see what the host wrote into `ranges`, or anywhere."""
        stats.bytes_to_device += self._sync(self._to, ranges or self._whole)

    def from_device(self, stats: NpuStats, ranges: Ranges | None = None) -> None:
        """Let the host see what the NPU wrote into `ranges`, or anywhere."""
        stats.bytes_from_device += self._sync(self._from, ranges or self._whole)

    def _sync(self, direction: Any, ranges: Ranges) -> int:
        if self.flush is not None:
            self.flush(self._address, ranges.table)
        else:
            for offset, size in ranges.parts:
                self.bo.sync(direction, size, offset)
        return ranges.size
