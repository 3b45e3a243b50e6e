"""The rungs that `build-overlay` climbs until the cores fit: first other ways to compile the same kernels, then
overlays with fewer of them.

What fits can't be known here, without Peano. An overlay that can do all, compiled tighter, comes before one that can do
less.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_xdna.lowering.overlay.variants import LEAN, PRODUCTS, VARIANTS, Variant

ROW_KERNELS = ("row_stats", "row_apply")
NO_UNROLLING = "-fno-unroll-loops"  # loops whose source asks for it are unrolled all the same


@dataclass(frozen=True)
class Rung:
    """One attempt. `flags`: how all kernels are compiled. `small`: kernels compiled for size instead, as -Os would."""

    variant: Variant
    flags: tuple[str, ...]
    small: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = "all ops" if not self.variant.without else f"without {', '.join(self.variant.without)}"
        sized = f", {' and '.join(self.small)} for size" if self.small else ""
        return f"{what}, {' '.join(self.flags)}{sized}"


def rungs(level: str = "-O2", largest: Variant = VARIANTS[0]) -> tuple[Rung, ...]:
    """All attempts, in order. `level`: the compiler's optimisation; `largest`: the variant to begin with."""
    tight = (level, NO_UNROLLING)
    first = VARIANTS.index(largest)
    ladder = [Rung(largest, (level,)), Rung(largest, tight), Rung(largest, tight, ROW_KERNELS)]
    ladder += [
        Rung(variant, tight, ROW_KERNELS) for variant in (LEAN, PRODUCTS) if VARIANTS.index(variant) > first
    ]
    return tuple(ladder)
