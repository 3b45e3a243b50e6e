"""Cycles of one call of a kernel, modelled."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from kernels_xdna1.published import STOCK_64

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
