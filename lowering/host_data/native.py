"""Compiled counterparts of the numpy loops that touch every value of a call; the same results, bit for bit.

Worth it because a call waits for them: a whisper-base call costs the host about 1 ms less. Where no C++ compiler is,
or no folder for its results, `functions()` is None and numpy does the work.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import numpy as np

from torch_xdna.kernels_xdna1 import host_compiler

FLAGS = ("-std=c++20", "-O3", "-march=native", "-fPIC", "-shared", "-Wall")


class Native:
    """Arrays are contiguous unless it says otherwise; nothing is checked here."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._to_bf16, self._unpack_a, self._frames = library.to_bf16, library.unpack_a, library.write_frames
        self._to_bf16.argtypes = [pointer, pointer, size]
        self._unpack_a.argtypes = [pointer, size, pointer, size, size]
        self._frames.argtypes = [pointer, *[size] * 4, pointer, *[size] * 4, pointer]
        self._to_bf16.restype = self._unpack_a.restype = self._frames.restype = None

    def to_bf16(self, values: np.ndarray) -> np.ndarray:
        """fp32 -> bits of bf16 (uint16), as `bf16.to_bf16`."""
        out = np.empty(values.shape, np.uint16)
        self._to_bf16(values.ctypes.data, out.ctypes.data, values.size)
        return out

    def write_frames(
        self, out: np.ndarray, matrix: np.ndarray, lines: np.ndarray, phases: int, line: int, before: int
    ) -> None:
        """fp32 (frames, channels), any strides -> uint16 lines, as `frames.ConvInput.write`. `lines`: int64 (n, 2)."""
        steps = (stride // matrix.itemsize for stride in matrix.strides)
        source = matrix.ctypes.data, *steps, *matrix.shape
        self._frames(*source, lines.ctypes.data, len(lines), phases, line, before, out.ctypes.data)

    def unpack_a(self, blocks: np.ndarray, rows: int, cols: int) -> np.ndarray:
        """uint16 (row_blocks, col_blocks, 4096) -> fp32 (rows, cols), as `blocks.unpack_a`."""
        out = np.empty((rows, cols), np.float32)
        self._unpack_a(blocks.ctypes.data, blocks.shape[1], out.ctypes.data, rows, cols)
        return out


@functools.cache
def functions() -> Native | None:
    """Compiled at first use, then kept in the user's cache."""
    try:
        source = Path(__file__).with_suffix(".cc").read_text()
        return Native(ctypes.CDLL(str(host_compiler.shared_object("native", source, FLAGS))))
    except (host_compiler.CompilerError, OSError):
        return None
