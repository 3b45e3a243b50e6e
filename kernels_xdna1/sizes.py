"""Estimated bytes of program memory per kernel and core.

Nobody here compiled a kernel for the core: bytes are counted from the schedules that the time model makes (`loops`), a
function that kernels share once. Of three traced kernels of others whose sizes are known, the estimate is off by up to
`FACTOR` (`precedents.sizes`); what it can't know is what a compiler adds for addresses and spills. It is good for one
thing, to say whether the whole is near 16 KB; `build-overlay` reads true sizes and takes the first variant that fits.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch_xdna.kernels_xdna1 import cycles

FACTOR = 1.25
"""Up or down: the worst of the three known sizes is off by 1.24."""
CORE_BYTES = 2560
"""The core's own loop: 2.5 KB where mlir-aie's lowering of it was compiled for RV32; IRON's smallest takes 880."""

ROW_VARIANTS = ("softmax", "gelu", "add")
"""Of row_stats and row_apply: what ONLY_LAYER_NORM leaves out."""


def functions(kernels: Iterable[str], only_layer_norm: bool = False) -> dict[str, int]:
    """Bytes by function of these kernels, and of what each has for itself, by its own name and variant."""
    wanted = set(kernels)
    found: dict[str, int] = {}
    for kernel, variant in cycles.variants():
        if kernel not in wanted:
            continue
        if only_layer_norm and kernel in ("row_stats", "row_apply") and variant in ROW_VARIANTS:
            continue
        for function, size in cycles.code(kernel, variant).items():
            name = function or (f"{kernel} ({variant})" if variant else kernel)
            found[name] = max(found.get(name, 0), size)
    return found


def kernel_bytes(kernel: str, variant: str = "") -> int:
    """All that one call reaches, shared functions included."""
    return sum(cycles.code(kernel, variant).values())


def core_bytes(kernels: Iterable[str], only_layer_norm: bool = False) -> int:
    """Estimated program bytes of a core with these kernels, its own loop included."""
    return CORE_BYTES + sum(functions(kernels, only_layer_norm).values())
