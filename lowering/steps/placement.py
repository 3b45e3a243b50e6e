"""Where every buffer lies: weights one after another, activations by liveness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch_xdna.lowering import limits
from torch_xdna.lowering.buffers import Buffer

Lifetime = tuple[int, int]  # first and last step that touches a buffer, inclusive


def place_in_order(buffers: Sequence[Buffer]) -> int:
    """Set offsets one after another; returns the blocks taken."""
    total = 0
    for buffer in buffers:
        buffer.offset = total
        total += buffer.blocks
    limits.ARGUMENT_OFFSET.check(total * limits.BLOCK_BYTES, "the size of a kernel argument")
    return total


def place_by_liveness(lifetimes: Mapping[Buffer, Lifetime]) -> int:
    """Set offsets so that buffers alive at the same time don't overlap; returns the blocks taken.

    Largest first, each at the lowest place that is free during its life: within a few percent of the largest
    sum of live buffers for a transformer, because its buffers have few different sizes.
    """
    placed: list[Buffer] = []
    for buffer in sorted(lifetimes, key=lambda b: (-b.blocks, lifetimes[b])):
        first, last = lifetimes[buffer]
        busy = sorted(
            (other.offset, other.offset + other.blocks)
            for other in placed
            if lifetimes[other][0] <= last and first <= lifetimes[other][1]
        )
        offset = 0
        for start, end in busy:
            if start - offset >= buffer.blocks:
                break
            offset = max(offset, end)
        buffer.offset = offset
        placed.append(buffer)
    total = max((b.offset + b.blocks for b in placed), default=0)
    limits.ARGUMENT_OFFSET.check(total * limits.BLOCK_BYTES, "the size of a kernel argument")
    return total
