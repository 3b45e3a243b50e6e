"""Cycles of one call of a kernel, modelled: nothing of ours ran on hardware.

A call's cycles are those of its loops and of the code between them, scheduled for the core's slots, latencies and
registers (`loops`, `schedule`), with what the compiler was seen to lose on other people's traced loops (`precedents`).
`counting` keeps them in cycles.json. `stock_cycles` is what stood here before: the busiest slot's operations times one
factor, that of mlir-aie's product as it was before it was rewritten; tables show both.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from torch_xdna.kernels_xdna1.published import STOCK_64

COUNTS_FILE = Path(__file__).with_name("cycles.json")

STOCK_GEMM_CYCLES = STOCK_64.cycles
"""mlir-aie's bf16 kernel at 64x64x64 before it was rewritten, measured on hardware (calibration row L5)."""

EMPTY_CALL = 22.0
"""Cycles of an empty call: 19-25 measured (note of calibration row L1). Traced cycles do not have it."""

STOCK_CYCLES = {
    "read_header": 33, "gemm_init": 1379, "gemm_step": STOCK_GEMM_CYCLES, "gemm_params": 1421,
    "gemm_params/gelu": 19103, "gemm_residual": 1382, "gemm_residual/skip": 22, "gemm_finish": 1382,
    "gemm_finish/keys": 1641, "gemm_finish/values": 1382, "gemm_finish/gelu": 19064, "attn_q": 700, "attn_q/skip": 22,
    "attn_init": 1548, "attn_k": 16458, "attn_finish": 3287, "row_stats/layer_norm": 1048, "row_stats/softmax": 7731,
    "row_apply/layer_norm": 1421, "row_apply/softmax": 4453, "row_apply/gelu": 4941, "row_apply/add": 276,
}  # fmt: skip
"""What the kernels before these were modelled to take, 2.65 times their busiest slot. GELU was all gemm_params' then;
where gemm_finish does it now, that much is added to the plain one's."""


def bound(kernel: str, variant: str = "") -> float:
    """Cycles that a call's busiest issue slot needs, if all others hide behind it: counted by the host build."""
    return max(_slots(kernel, variant).values())


def busiest(kernel: str, variant: str = "") -> str:
    """The issue slot of `bound`."""
    counts = _slots(kernel, variant)
    return max(counts, key=lambda slot: counts[slot]).replace("_", " ")


def cycles(kernel: str, variant: str = "") -> float:
    """Modelled cycles of one call. Variants: `gelu` (gemm_params: before a residual; gemm_finish), `skip`
    (gemm_residual, attn_q), `keys`, `values` (gemm_finish), `layer_norm`, `softmax`, `gelu`, `add` (row operations).
    Raises KeyError for an unknown kernel or variant.
    """
    return float(_per_call()[_key(kernel, variant)]["cycles"]) + EMPTY_CALL


def stock_cycles(kernel: str, variant: str = "") -> float:
    """The same at the rate that was assumed for every kernel before; kernels that are newer, at its factor. Raises
    KeyError."""
    found = STOCK_CYCLES.get(_key(kernel, variant))
    return float(found or bound(kernel, variant) * STOCK_64.factor + EMPTY_CALL)


def loops(kernel: str, variant: str = "") -> list[dict[str, Any]]:
    """The innermost loops of a call: name, trips, times, ii, mii, stages, bound, cycles."""
    return _per_call()[_key(kernel, variant)]["loops"]


def code(kernel: str, variant: str = "") -> dict[str, int]:
    """Estimated bytes of code by function, "" for the kernel's own."""
    return _per_call()[_key(kernel, variant)]["code"]


def meets(kernel: str, variant: str = "") -> dict[tuple[str, str], float]:
    """Cycles of a call in which two operands are reached at once (one twice, if both names are the same)."""
    pairs = _per_call()[_key(kernel, variant)]["meets"]
    return {(pair.split()[0], pair.split()[1]): float(count) for pair, count in pairs.items()}


def variants() -> tuple[tuple[str, str], ...]:
    """All (kernel, variant) with an estimate."""
    return tuple((name.partition("/")[0], name.partition("/")[2]) for name in _per_call())


def _key(kernel: str, variant: str) -> str:
    return f"{kernel}/{variant}" if variant else kernel


def _slots(kernel: str, variant: str) -> dict[str, float]:
    return _per_call()[_key(kernel, variant)]["slots"]


@cache
def _per_call() -> dict[str, dict[str, Any]]:
    return json.loads(COUNTS_FILE.read_text())["per_call"]
