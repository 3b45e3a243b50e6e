"""Which of a core's buffers share a 16 KB bank of its data memory, and what that costs its kernels: modelled.

Two accesses to one bank in a cycle cost one cycle more (jdominick05/ignite-xdna measured it, loads and stores alike).
How often a kernel reaches two of its buffers at once comes from its modelled schedule (`kernels_xdna1.cycles.meets`);
that the two meet in one bank is taken to be as likely as their bytes lie there. Two accesses to one and the same
buffer meet wherever it lies, so they are not counted. None of it is in the modelled times: the traced loops that
those rest on paid for their own placement (the product of 64 x 64 x 64: at most 169 of 2,969 cycles).

`sequential` is where mlir-aie's allocation puts them, the one that the overlay asks for: behind the stack, the largest
first. `apart` has a bank for each stream and one for the sums: everything fits, but objects of FIFOs can't be given
addresses before aiecc makes buffers of them, so it is shown and not built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch_xdna.kernels_xdna1 import cycles
from torch_xdna.kernels_xdna1.contract import BLOCK_BYTES, CONSTANT_BYTES, HEADER_BYTES, SUMS_BYTES
from torch_xdna.lowering import limits

BANK = 16 * 1024
BANKS = 4
Place = tuple[int, int]  # address, bytes
# Operands of the kernels: the buffers that each may be.
BUFFERS: Mapping[str, tuple[str, ...]] = {
    "a": ("A0", "A1"), "a0": ("A0",), "a1": ("A1",), "b": ("B0", "B1"), "c": ("C",), "acc": ("acc",), "hdr": ("hdr",),
}  # fmt: skip


def sequential() -> dict[str, Place]:
    """The buffers one behind another: the sums, the FIFOs' objects, the header, the kernels' constants."""
    sizes = {
        "acc": SUMS_BYTES,
        **dict.fromkeys(("A0", "A1", "B0", "B1", "C"), BLOCK_BYTES),
        "hdr": HEADER_BYTES,
    }
    sizes["constants"] = CONSTANT_BYTES
    found, at = {"stack": (0, limits.CORE_STACK)}, limits.CORE_STACK
    for name, size in sizes.items():
        found[name] = at, size
        at += size
    return found


def apart() -> dict[str, Place]:
    """A bank for A, one for B, one for the sums; C with stack, header and constants."""
    stack = limits.CORE_STACK
    return {
        "stack": (0, stack), "hdr": (stack, HEADER_BYTES), "constants": (stack + HEADER_BYTES, CONSTANT_BYTES),
        "C": (BANK - BLOCK_BYTES, BLOCK_BYTES), "acc": (BANK, SUMS_BYTES),
        "A0": (2 * BANK, BLOCK_BYTES), "A1": (2 * BANK + BLOCK_BYTES, BLOCK_BYTES),
        "B0": (3 * BANK, BLOCK_BYTES), "B1": (3 * BANK + BLOCK_BYTES, BLOCK_BYTES),
    }  # fmt: skip


def shares(place: Place) -> list[float]:
    """How much of a buffer lies in each bank."""
    address, size = place
    inside = [max(0, min(address + size, (i + 1) * BANK) - max(address, i * BANK)) for i in range(BANKS)]
    return [part / size for part in inside]


def together(first: Sequence[Place], second: Sequence[Place]) -> float:
    """Likelihood that an access to one of `first` and one to one of `second` are in the same bank."""
    pairs = [(shares(x), shares(y)) for x in first for y in second]
    return sum(sum(p * q for p, q in zip(x, y)) for x, y in pairs) / len(pairs)


def lost_cycles(kernel: str, variant: str, placement: Mapping[str, Place]) -> float:
    """Cycles per call that accesses to two buffers in one bank cost a kernel."""
    lost = 0.0
    for (first, second), count in cycles.meets(kernel, variant).items():
        if first != second:
            places = [[placement[name] for name in BUFFERS[operand]] for operand in (first, second)]
            lost += count * together(*places)
    return lost


def listing() -> list[str]:
    """Both placements, and what each costs every kernel that loses cycles in one of them."""
    placements = {"sequential": sequential(), "apart": apart()}
    lines = []
    for name, placement in placements.items():
        lines.append(f"{name}:")
        for buffer, (address, size) in sorted(placement.items(), key=lambda item: item[1]):
            banks = ", ".join(
                f"{i} ({share:.0%})" for i, share in enumerate(shares((address, size))) if share
            )
            lines.append(f"    {buffer:10} {address:6} to {address + size:6}, bank {banks}")
    lines.append("cycles per call lost to two buffers in one bank, modelled (sequential, apart, of):")
    for kernel, variant in cycles.variants():
        lost = [lost_cycles(kernel, variant, placement) for placement in placements.values()]
        if max(lost) >= 1:
            name = f"{kernel} ({variant})" if variant else kernel
            lines.append(f"    {name:24} {lost[0]:6.0f} {lost[1]:6.0f} {cycles.cycles(kernel, variant):8.0f}")
    return lines
