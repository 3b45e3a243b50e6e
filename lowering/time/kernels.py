"""Cycles of one call of a core kernel: what `Costs.kernel_cycles` answers.

Our kernels' loops, scheduled for the core's slots with what a compiler was seen to lose on traced loops
(`kernels_xdna1.cycles.cycles`). Two switches, neither of them a default, both shown beside the default's results:
`stock_kernels` takes the rates that were assumed before the kernels were rewritten (mlir-aie's product as it was then,
calibration row L5, and all others at its factor); `better_gemm` has the matrix unit's part of `gemm_step` and `attn_k`
run at the best published rate (row L10).
"""

from __future__ import annotations

from functools import cache

from torch_xdna.kernels_xdna1 import cycles

STOCK_STEP = cycles.STOCK_GEMM_CYCLES  # 64x64x64 bf16 -> fp32 with the sums in core memory
BEST_STEP = 64**3 / 112.6  # cycles at the best published single-core rate; calibration row L10


@cache
def kernel_cycles(
    name: str, variant: str = "", *, better_gemm: bool = False, stock_kernels: bool = False
) -> float:
    """Cycles of one call of kernel `name`.

    `variant`: see `kernels_xdna1.cycles.cycles`. Raises KeyError for a kernel or variant that there is not.
    """
    rate = cycles.stock_cycles if stock_kernels else cycles.cycles
    modelled = rate(name, variant)
    if better_gemm and name in ("gemm_step", "attn_k"):  # half of attention's products are inside attn_k
        return max(modelled, step := rate("gemm_step")) - step + BEST_STEP
    return modelled
