"""GELU and residual additions move into the matrix product before them, where the fp32 sum still is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from torch_xdna.lowering.ops import Activation, Add, Conv1d, Gelu, Linear, Op, Region


def fuse(region: Region) -> Region:
    """The same region with fewer ops and roundings; values that nothing reads any more are gone."""
    reads = Counter(region.outputs)
    for op in region.ops:
        reads.update(op.inputs)
    made: dict[int, Op] = {}
    for op in region.ops:
        fused = _into_product(op, made, reads)
        if fused is None:
            made[op.out] = op
            continue
        product, result = fused
        # The fused op stands where the later one stood: a residual may be computed between the two.
        del made[product.out]
        made[result.out] = result
    kept = {*region.inputs, *made}
    return replace(region, ops=tuple(made.values()), values=tuple(v for v in region.values if v.id in kept))


def _into_product(op: Op, made: dict[int, Op], reads: Counter) -> tuple[Op, Op] | None:
    """(the product that vanishes, the op that replaces both), or None."""
    if isinstance(op, Gelu):
        product = made.get(op.x)
        if (
            isinstance(product, (Linear, Conv1d))
            and reads[op.x] == 1
            and product.activation is None
            and product.residual is None
        ):
            return product, replace(product, out=op.out, activation=Activation.GELU)
    if isinstance(op, Add):
        for product_id, residual in ((op.y, op.x), (op.x, op.y)):
            product = made.get(product_id) if isinstance(product_id, int) else None
            if (
                not isinstance(product, (Linear, Conv1d))
                or reads[product.out] != 1
                or product.residual is not None
            ):
                continue
            if isinstance(product, Linear) and not isinstance(residual, int):
                continue
            return product, replace(product, out=op.out, residual=residual)  # type: ignore[arg-type]
    return None
