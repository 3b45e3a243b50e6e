"""Matrix products summed as the core's adder does it, beside the CPU's fp32 sums: how far apart results are.

Only the matrix unit follows the core here; the row kernels' own additions are still IEEE's.
"""

from __future__ import annotations

import numpy as np
from core_driver import Core, rounded
from whisper_like import relative_l2, residual_stream


def test_products_differ_by_less_than_a_rounding_to_bf16(checked_kernels) -> None:
    random = np.random.default_rng(11)
    x, w = residual_stream(random, 64, 128), rounded(random.standard_normal((64, 128)) * 0.05)
    core = Core(checked_kernels)
    usual = {gelu: core.gemm(x, w, gelu=gelu) for gelu in (False, True)}
    checked_kernels.exact(True)
    try:
        exact = {gelu: core.gemm(x, w, gelu=gelu) for gelu in (False, True)}
    finally:
        checked_kernels.exact(False)
    for gelu, found in exact.items():
        print(gelu, np.mean(found == usual[gelu]), relative_l2(found, usual[gelu]))
        assert np.mean(found == usual[gelu]) > 0.99, "bf16 results with the same bits"
        assert relative_l2(found, usual[gelu]) < 5e-4
