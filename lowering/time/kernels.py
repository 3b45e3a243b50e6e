"""Cycles of one call of a core kernel: what `Costs.kernel_cycles` answers.

The matrix product `gemm_step` is mlir-aie's stock kernel, measured on hardware by others (calibration row L5: 48 of 128
MAC per cycle). Every other kernel is counted: the issue slots of its host build, times what compilers were seen to
lose (`kernels_xdna1.cycles.cycles`).

With `better_gemm` the matrix unit's part of `gemm_step` and `attn_k` runs at the best published rate (row L10)
instead: never the default, always shown beside it.
"""

from __future__ import annotations

from functools import cache

from kernels_xdna1 import cycles

STOCK_STEP = cycles.STOCK_GEMM_CYCLES  # 64x64x64 bf16 -> fp32 with the sums in core memory
BEST_STEP = 64**3 / 112.6  # cycles at the best published single-core rate; calibration row L10


@cache
def kernel_cycles(name: str, variant: str = "", *, better_gemm: bool = False) -> float:
    """Cycles of one call of kernel `name`.

    `variant`: see `kernels_xdna1.cycles.cycles`. Raises KeyError for a kernel or variant that there is not.
    """
    step = BEST_STEP if better_gemm else STOCK_STEP
    if name == "gemm_step":
        return step
    modelled = cycles.cycles(name, variant)
    # Half of attention's products are inside attn_k, at the stock kernel's rate unless asked.
    return max(modelled, STOCK_STEP) - STOCK_STEP + step if name == "attn_k" else modelled
