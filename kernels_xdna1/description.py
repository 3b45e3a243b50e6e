"""What the overlay's kernels are: one entry per C++ function, read by the overlay, the array simulator and the docs.

Numpy and torch are not needed here. Sizes are bytes. The layout of every operand is written in `ORDERS`, the words of
the header object in `HEADER`; kernels/common.hpp holds the same facts for C++.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernels_xdna1.published import STOCK_64

BLOCK_BYTES = 64 * 64 * 2
SUMS_BYTES = 64 * 64 * 4
HEADER_BYTES = 64 * 4
STACK_BYTES = 3328
CONSTANT_BYTES = 2048
"""Data memory kept for the kernels' constants (GELU's table, lane numbers): the linker puts them behind the buffers."""

ORDERS = {
    "A": "bf16 [16][8][4][8]: tiles of 4 rows x 8 columns (row tile, column tile, row, column)",
    "B": "bf16 [8][16][8][4]: tiles of 8 k x 4 n (k tile, n tile, k, n); keys: k = head dimension; values: k = key",
    "sums": "fp32 [16][16][4][4]: tiles of 4 x 4",
    "header": "int32 [64]: words of `HEADER`, then state of the core",
    "panel": "fp32 bias[64], int32 output order (0 A, 1 keys, 2 values), int32 GELU (0 or 1)",
    "scratch": "fp32 scores [4][16][4][4] of 16 rows, lane sums [16][4][4], maxima [16][4][4]",
    "share": "an A-order block of which the core owns 16 rows (layer_norm, softmax, gelu, add)",
    "pieces": "four times 16 rows of a block in A order",
    "vector": "fp32 [2048]: gamma or beta of a layer_norm",
}

HEADER = {
    0: "op: 1 gemm, 2 attention, 3 row operation",
    1: "trips of the outer loop",
    2: "trips of the inner loop: blocks of k, key blocks, blocks of the statistics pass",
    3: "gemm: residual objects per output; attention: query objects before the two held; row: outputs per outer trip",
    4: "row: input objects per output object",
    5: "row: kind: 0 layer_norm, 1 softmax, 2 gelu, 3 add",
    6: "gemm: first valid row of the output",
    7: "gemm: end of the valid rows; rows outside are zeroed",
    8: "gemm: row groups",
    9: "attention: valid keys; softmax: valid columns",
    10: "attention: fp32 bits of the bf16 upper part of scale * log2(e); layer_norm: fp32 bits of eps",
    11: "attention: fp32 bits of the bf16 lower part of scale * log2(e)",
    12: "layer_norm: columns; those that fill the last block do not count",
    13: "layer_norm: fp32 bits of 1 / columns",
    14: "layer_norm: fp32 bits of the number of zero columns that fill the last block",
    32: "state: output order of the panel",
    33: "state: GELU of the panel",
}


@dataclass(frozen=True)
class Operand:
    """An argument of a kernel: a buffer (`order` names its layout, `bytes` its size) or an int32 (`order` is "int")."""

    name: str
    order: str
    bytes: int
    written: bool = False

    @property
    def is_buffer(self) -> bool:
        return self.order != "int"

    @property
    def c_type(self) -> str:
        if not self.is_buffer:
            return "int32_t"
        element = {"sums": "float", "header": "int32_t"}.get(self.order, "bfloat16")
        return f"{element} *" if self.written else f"const {element} *"


def _block(name: str, order: str, written: bool = False) -> Operand:
    return Operand(name, order, BLOCK_BYTES, written)


def _int(name: str) -> Operand:
    return Operand(name, "int", 4)


_ACC, _ACC_OUT = Operand("acc", "sums", SUMS_BYTES), Operand("acc", "sums", SUMS_BYTES, True)
_HDR, _HDR_OUT = Operand("hdr", "header", HEADER_BYTES), Operand("hdr", "header", HEADER_BYTES, True)


@dataclass(frozen=True)
class Kernel:
    """A C++ function of kernels/`name`.cc. `op` is the overlay's loop that calls it."""

    name: str
    op: str
    does: str
    operands: tuple[Operand, ...]

    @property
    def signature(self) -> str:
        """The declaration in C."""
        return (
            f"void {self.name}({', '.join(f'{o.c_type} {o.name}'.replace('* ', '*') for o in self.operands)})"
        )

    @property
    def buffers(self) -> tuple[Operand, ...]:
        return tuple(o for o in self.operands if o.is_buffer)


KERNELS = (
    Kernel("read_header", "all", "keep a header object's words", (_block("a", "A"), _HDR_OUT)),
    Kernel("gemm_init", "gemm", "acc = 0", (_ACC_OUT,)),
    Kernel("gemm_step", "gemm, attention", "acc += a b", (_block("a", "A"), _block("b", "B"), _ACC_OUT)),
    Kernel(
        "gemm_params",
        "gemm",
        "acc += bias, then GELU if asked for",
        (_block("b", "panel"), _ACC_OUT, _HDR_OUT),
    ),
    Kernel(
        "gemm_residual", "gemm", "acc += a if q is col", (_block("a", "A"), _ACC_OUT, _int("q"), _int("col"))
    ),
    Kernel(
        "gemm_finish",
        "gemm",
        "c = bf16(acc) in the panel's order, zero outside the valid rows",
        (_ACC, _block("c", "A", True), _HDR, _int("o"), _int("row")),
    ),
    Kernel(
        "attn_q",
        "attention",
        "c = a if q is col",
        (_block("a", "A"), _block("c", "A", True), _int("q"), _int("col")),
    ),
    Kernel(
        "attn_init", "attention", "O = 0, sums and maxima empty", (_block("a1", "scratch", True), _ACC_OUT)
    ),
    Kernel(
        "attn_k",
        "attention",
        "P = 2^(scaled scores - maximum), O and sums brought to the new maximum",
        (
            _block("b", "B"),
            _block("c", "A"),
            _block("a0", "A", True),
            _block("a1", "scratch", True),
            _ACC_OUT,
            _HDR,
            _int("k"),
        ),
    ),
    Kernel(
        "attn_finish",
        "attention",
        "c = bf16(O / sum)",
        (_ACC, _block("a1", "scratch"), _block("c", "A", True)),
    ),
    Kernel(
        "row_stats",
        "row",
        "moments (layer_norm) or maximum and sum of exponentials (softmax)",
        (_block("b", "share"), _ACC_OUT, _HDR_OUT, _int("k"), _int("row")),
    ),
    Kernel(
        "row_apply",
        "row",
        "results of layer_norm, softmax, gelu or add for 16 rows",
        (
            _block("b", "share"),
            _block("c", "pieces", True),
            _block("a0", "vector"),
            _block("a1", "vector"),
            _ACC_OUT,
            _HDR,
            _int("g"),
            _int("j"),
            _int("row"),
        ),
    ),
)

BY_NAME = {kernel.name: kernel for kernel in KERNELS}


# ---- cycles ----

COUNTS_FILE = Path(__file__).with_name("cycles.json")

STOCK_GEMM_CYCLES = STOCK_64.cycles
"""mlir-aie's bf16 kernel at 64x64x64, measured on hardware."""


def bound(kernel: str, variant: str = "") -> float:
    """Cycles that a call's busiest issue slot needs, if all others hide behind it: counted by the host build."""
    return max(_per_call()[_key(kernel, variant)].values())


def busiest(kernel: str, variant: str = "") -> str:
    """The issue slot of `bound`."""
    counts = _per_call()[_key(kernel, variant)]
    return max(counts, key=lambda slot: counts[slot]).replace("_", " ")


def compiler_factor() -> float:
    """Measured over bound of the one kernel of which both are known: the stock 64x64x64 product."""
    return STOCK_GEMM_CYCLES / bound("gemm_step")


def gemm_cycles(m: int, k: int, n: int) -> float:
    """The published fit of the stock bf16 kernel, with the sums in core memory: 5504 at 64x64x64."""
    return (m / 16) * (n / 16) * (33 * k / 8 + 80)


def cycles(kernel: str, variant: str = "") -> float:
    """Estimated cycles of one call, modelled: nothing of ours ran on hardware.

    The product takes what the stock kernel takes (same blocking, same accumulators). Every other kernel takes its
    resource bound times the factor that the compiler loses on the product. Variants: `gelu` (gemm_params), `skip`
    (gemm_residual, attn_q), `keys`, `values` (gemm_finish), `layer_norm`, `softmax`, `gelu`, `add` (row operations).
    Raises KeyError for an unknown kernel or variant.
    """
    if kernel == "gemm_step":
        return gemm_cycles(64, 64, 64)
    return bound(kernel, variant) * compiler_factor() + EMPTY_CALL


EMPTY_CALL = 22.0
"""Cycles of an empty call: 19-25 measured (note of calibration row L1)."""


def variants() -> tuple[tuple[str, str], ...]:
    """All (kernel, variant) with an estimate."""
    return tuple((name.partition("/")[0], name.partition("/")[2]) for name in _per_call())


def _key(kernel: str, variant: str) -> str:
    return f"{kernel}/{variant}" if variant else kernel


@cache
def _per_call() -> dict[str, dict[str, float]]:
    return json.loads(COUNTS_FILE.read_text())["per_call"]
