"""Loops that others traced on this kind of core, predicted as our kernels are, and what that says of the model.

The traced cycles are mlir-aie's (skills/aie-kernel-opt-static, npu1 rows of its table; Peano 22, from one event to
another, so without the call). precedents.cc has the same loads, products and moves per trip, written from the
description: rows whose loops read tables or divide by a library's routine are left out: none of our kernels does.

Two constants are fitted: what the compiler loses on overlapped loops and on code that runs through. `left_out` predicts
each kernel's rows with the constants fitted on all others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import log
from statistics import median

import numpy as np

from torch_xdna.kernels_xdna1 import host, loops
from torch_xdna.kernels_xdna1.host_compiler import shared_object

SOURCE = host.HERE / "precedents.cc"


@dataclass(frozen=True)
class Precedent:
    """`row`: of mlir-aie's record. `id`: of calibration.csv. `which`: the case in precedents.cc."""

    id: str
    row: str
    kernel: str
    cycles: float
    which: int
    bytes: int = 0  # of program memory, where that is known

    @property
    def kind(self) -> str:
        """Rows of a kind are left out together."""
        return self.kernel.split()[0]


PRECEDENTS = (
    Precedent("K2", "S41", "product 64x32x64", 1881, 0),
    Precedent("K3", "S41", "product 64x64x64, B transposed in the kernel", 2969, 1),
    Precedent("K13", "S24", "add 256", 30, 2),
    Precedent("K12", "S24", "add 1024", 78, 3, 304),
    Precedent("K14", "S24", "add 2048", 142, 4),
    Precedent("K15", "S25", "mul 1024", 78, 5),
    Precedent("K16", "S25", "mul 4096", 270, 6),
    Precedent("K17", "S28", "relu 1024", 75, 7),
    Precedent("K18", "S30", "fp32 to bf16 1024", 144, 8),
    Precedent("K19", "S69", "sum of int32 1024", 147, 9),
    Precedent("K20", "S71", "maximum of bf16 1024", 90, 10),
    Precedent("K21", "S63", "bitwise and 2048 B", 101, 11),
    Precedent("K22", "S59", "fp32 to bf16 behind a selection 1024", 338, 12),
    Precedent("K23", "S50", "rope 1024", 261, 13),
    Precedent("K24", "S81", "transpose of 8x8 blocks 256x32", 1041, 14),
    Precedent("K25", "S57", "dwconv, 9 taps", 666, 15),
    Precedent("K26", "S82", "transpose of 4x4 blocks 32x32", 141, 16),
    Precedent("K27", "S81", "transpose of 8x8 blocks 32x32", 144, 16),
    Precedent("K28", "S60", "leaky relu 1024", 188, 17, 432),
    Precedent("K29", "S71", "maximum of int32 1024", 155, 18),
    Precedent("K30", "S74", "convolution 14x14, 8 accumulators", 990, 19, 352),
    Precedent("K31", "S55", "4 bits to bf16 576", 161, 20),
)


@dataclass(frozen=True)
class Prediction:
    precedent: Precedent
    cycles: float

    @property
    def error(self) -> float:
        return self.cycles / self.precedent.cycles - 1


@cache
def _traces() -> tuple[list[loops.Operation], ...]:
    source = f'#include "aie_api/aie.hpp"\n#include "aie_api/entries.hpp"\n{SOURCE.read_text()}'
    flags = ["-O1", *host.FLAGS, "-DAIE_HOST_COUNT", "-DAIE_HOST_DYNAMIC_TLS"]
    library = ctypes.CDLL(
        str(shared_object("precedents", source, flags, [host.HERE / "host_api", host.HERE / "kernels"]))
    )
    library.precedent.argtypes = (ctypes.c_int32, *[ctypes.c_void_p] * 3)
    buffers = [np.zeros(65536 + 64, np.uint8) for _ in range(3)]
    addresses = [b.ctypes.data + -b.ctypes.data % 64 for b in buffers]
    found = []
    for precedent in PRECEDENTS:
        library.precedent(precedent.which, *addresses)
        found.append(loops.trace(library))
    return tuple(found)


def predict(pipelined: float, straight: float) -> list[Prediction]:
    """Every precedent with these losses."""
    return [
        Prediction(p, loops.Timing(trace, pipelined, straight).cycles)
        for p, trace in zip(PRECEDENTS, _traces())
    ]


GRID = [(1 + a / 20, 1 + b / 20) for a in range(11) for b in range(5)]


@cache
def _grid() -> dict[tuple[float, float], list[Prediction]]:
    return {losses: predict(*losses) for losses in GRID}


def fit(without: str = "") -> tuple[float, float]:
    """The losses with the least sum of squared log errors over all kernels but those of kind `without`."""

    def error(losses: tuple[float, float]) -> float:
        return sum(log(1 + p.error) ** 2 for p in _grid()[losses] if p.precedent.kind != without)

    return min(GRID, key=error)


def left_out() -> list[Prediction]:
    """Each row predicted by losses fitted without its kernel."""
    found = []
    for i, precedent in enumerate(PRECEDENTS):
        found.append(_grid()[fit(precedent.kind)][i])
    return found


def summary(predictions: Sequence[Prediction]) -> tuple[float, float]:
    """(median, worst) absolute error."""
    errors = [abs(p.error) for p in predictions]
    return median(errors), max(errors)


def sizes() -> dict[str, tuple[int, int]]:
    """Kernel -> (bytes traced, bytes estimated), where the first is known."""
    return {
        p.kernel: (p.bytes, sum(loops.Timing(trace).code.values()))
        for p, trace in zip(PRECEDENTS, _traces())
        if p.bytes
    }
