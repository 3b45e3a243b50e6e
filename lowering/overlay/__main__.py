"""`python -m torch_xdna.lowering.overlay`: the overlay as MLIR, as a picture, as a listing."""

from __future__ import annotations

import argparse
import sys

from torch_xdna.kernels_xdna1 import sizes
from torch_xdna.lowering import limits
from torch_xdna.lowering.overlay import banks
from torch_xdna.lowering.overlay.core_program import listing
from torch_xdna.lowering.overlay.description import COLUMN_CHOICES, Overlay, Tile, memory_use, overlay
from torch_xdna.lowering.overlay.mlir import print_mlir
from torch_xdna.lowering.overlay.picture import draw
from torch_xdna.lowering.overlay.variants import VARIANTS, Variant


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m torch_xdna.lowering.overlay", description="Print the overlay."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--mlir", action="store_true", help="as input for mlir-aie's aiecc")
    what.add_argument("--svg", action="store_true", help="as a picture")
    what.add_argument("--program", action="store_true", help="the core program")
    what.add_argument(
        "--banks", action="store_true", help="buffers by bank, and what sharing one costs, modelled"
    )
    what.add_argument("--memory", action="store_true", help="what fills the tiles' memories, in bytes")
    parser.add_argument("--columns", type=int, choices=COLUMN_CHOICES, default=4)
    chosen = parser.parse_args()
    array = overlay(chosen.columns)
    if chosen.mlir:
        sys.stdout.write(print_mlir(array))
    elif chosen.svg:
        sys.stdout.write(draw(array))
    elif chosen.program:
        print("\n".join(listing(array.program)))
    elif chosen.banks:
        print("\n".join(banks.listing()))
    else:
        print("\n".join(_memory(array)))


def _memory(array: Overlay) -> list[str]:
    lines = []
    for tile in (Tile(0, 1), Tile(0, 2)):
        use = memory_use(array, tile)
        lines.append(f"{tile}: {sum(use.values()):,}")
        lines += [f"    {name:10} {size:8,}" for name, size in use.items()]
    room = f"{limits.CORE_PROGRAM.maximum:,}"
    lines.append(
        f"program memory of a core: {room}; of it, estimated and off by {sizes.FACTOR} x either way:"
    )
    return lines + [_program(variant) for variant in VARIANTS]


def _program(variant: Variant) -> str:
    size = sizes.core_bytes(variant.kernels, "ONLY_LAYER_NORM" in variant.defines)
    low, high = size / sizes.FACTOR, size * sizes.FACTOR
    return f"    {variant.name:10} {size:8,} ({low:,.0f} to {high:,.0f}; `torch-xdna build-overlay` reads true sizes)"


if __name__ == "__main__":
    main()
