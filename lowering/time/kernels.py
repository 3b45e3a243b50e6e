"""Cycles of one call of a core kernel: what `Costs.kernel_cycles` answers.

Three sources, in this order, and `source` says which one was used:
1. measured: the matrix product `gemm_step` at 64 x 64 x 64 is mlir-aie's stock kernel, measured on hardware
   (calibration row L5: 5427 cycles, 48 of 128 MAC per cycle).
2. counted: the issue slots that the host build of our kernels counts, times what compilers were seen to lose
   (`kernels_xdna1.description.cycles`), where that module is present.
3. assumed: vectors of 16 lanes times the operations in the op's formula, at one vector operation per 2 cycles
   (the stock kernel's hot loop issues 16 MACs in 32 bundles).

With `better_gemm` the matrix unit's part of `gemm_step` and `attn_k` runs at the best published rate
(112.6 MAC per cycle, row L10) instead: never the default, always shown beside it.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

STOCK_STEP = 5427.4  # cycles of 64x64x64 bf16 -> fp32 with the accumulator in L1; calibration row L5
BEST_STEP = 64**3 / 112.6  # cycles at the best published single-core rate; calibration row L10
CALL = 24.0  # cycles of an empty call, 19-25 measured (note of row L1)

# Per call, in cycles. Elements / 16 lanes x vector operations x 2 cycles each, unless a line says otherwise.
ASSUMED: dict[str, float] = {
    "read_header": 32 + CALL,  # 32 scalar words, one load and store per cycle
    "gemm_init": 16384 / 32 + CALL,  # one 256-bit store per cycle
    "gemm_params": 4096 / 16 * 2 * 2 + CALL,  # load, add and store of the accumulator
    "gemm_params/gelu": 4096 / 16 * 14 * 2 + CALL,  # relu + one of three cubics in |x|, hi/lo products
    "gemm_residual": 4096 / 16 * 2 * 2 + CALL,
    "gemm_residual/skip": CALL,
    "gemm_finish": 4096 / 16 * 2 * 2 + CALL,  # round and store, once per output
    "attn_q": 8192 / 32 * 2 + CALL,
    "attn_q/skip": CALL,
    "attn_init": (16384 + 2048) / 32 + CALL,
    "attn_finish": 4096 / 16 * 3 * 2 + 64 * 20 + CALL,  # 64 reciprocals by Newton steps
    "row_stats/layer_norm": 1024 / 16 * 3 * 2 + CALL,  # one share: 16 rows x 64 columns
    "row_stats/softmax": 1024 / 16 * 8 * 2 + CALL,
    "row_apply/layer_norm": 1024 / 16 * 5 * 2 + 16 * 20 + CALL,
    "row_apply/softmax": 1024 / 16 * 10 * 2 + 16 * 20 + CALL,
    "row_apply/gelu": 1024 / 16 * 14 * 2 + CALL,
    "row_apply/add": 1024 / 16 * 1.5 * 2 + CALL,  # per object: x then y
}
SOFTMAX_ELEMENT = 14 / 16 * 2  # of `attn_k`: max, exp2 (5 operations), sum, two conversions, rescaling of O


def kernel_cycles(name: str, variant: str = "", *, better_gemm: bool = False) -> float:
    """Cycles of one call of kernel `name`.

    `variant`: `gelu` for `gemm_params`; `skip` for `gemm_residual` and `attn_q` when the object is not this
    column's; the kind (`layer_norm`, `softmax`, `gelu`, `add`) for row ops.
    """
    step = BEST_STEP if better_gemm else STOCK_STEP
    if name == "gemm_step":
        return step
    counted = _counted(name, variant)
    if counted is not None:
        # Half of attention's products are inside attn_k, at the stock kernel's rate unless asked.
        return max(counted, STOCK_STEP) - STOCK_STEP + step if name == "attn_k" else counted
    if name == "attn_k":
        return step + 4096 * SOFTMAX_ELEMENT + 64 * 20
    return ASSUMED[f"{name}/{variant}" if variant else name]


def source(name: str, variant: str = "") -> str:
    """Where the number comes from: `measured`, `counted` or `assumed`."""
    if name == "gemm_step":
        return "measured"
    return "assumed" if _counted(name, variant) is None else "counted"


def assumed() -> tuple[str, ...]:
    """The kernels (and variants) whose cycles are assumed, for the label of a modelled time."""
    names = [*ASSUMED, "attn_k"]
    return tuple(name for name in names if source(*name.partition("/")[::2]) == "assumed")


@cache
def _counted(name: str, variant: str) -> float | None:
    try:
        cycles: Any = importlib.import_module("kernels_xdna1.description").cycles
    except (ImportError, AttributeError):
        return None
    try:
        return float(cycles(name, variant) if variant else cycles(name))
    except (KeyError, TypeError):
        return None
