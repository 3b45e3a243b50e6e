"""Ops that only rearrange a tensor, or mean nothing to the device: followed, not executed in a region."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import fx

from torch_xdna.matching.layout import Dims, regroup
from torch_xdna.matching.state import FLOATS, Layout, MatchState, arguments, shape_of

aten = torch.ops.aten

# The order of elements stays, only the grouping into dimensions changes. The second set makes a copy in
# eager.
_REGROUPING = {
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten._reshape_copy.default,
    aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.expand.default, aten.alias.default, aten.detach.default, aten.flatten.using_ints,
}  # fmt: skip
_COPIES = {aten.clone.default, aten.contiguous.default, aten.lift_fresh_copy.default, aten.lift_fresh.default}
_PERMUTING = {aten.permute.default, aten.transpose.int, aten.t.default, aten.mT.default, aten.numpy_T.default}
_CASTS = {aten._to_copy.default, aten.to.dtype}
_SLICING = {
    aten.slice.Tensor, aten.select.int, aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default,
    aten.as_strided.default, aten.unbind.int, aten.narrow.default, aten.diagonal.default, aten.unfold.default,
}  # fmt: skip

VIEWS = _REGROUPING | _PERMUTING | _SLICING  # nothing is computed or copied
REARRANGING = _REGROUPING | _PERMUTING | _COPIES | _CASTS
# What may stand between a parameter and its use as a weight: only data movement, done once when weights are
# packed.
_WEIGHT_OPS = REARRANGING | _SLICING | {
    operator.getitem, aten.unsafe_split.Tensor, aten.unsafe_split_with_sizes.default, aten.cat.default,
    aten.stack.default, aten.repeat.default, aten.flip.default, aten.roll.default, aten.index_select.default,
    aten.embedding.default,
}  # fmt: skip
_CONSTANTS = {aten.arange.default, aten.arange.start, aten.arange.start_step}


def follow(state: MatchState, node: fx.Node) -> Layout | None:
    """The layout of a rearranged tensor, or None if the node does something else (or is not followed)."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    if node.target is operator.getitem:
        return None
    if node.target in (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar):
        return _scaled(state, node)
    if node.target in (aten.clamp.default, aten.clamp.Tensor):
        return state.layout(arguments(node)[0]) if clamps_only_overflow(node) else None
    if node.target is aten.copy.default:
        return _overwritten(state, node)
    if node.target not in REARRANGING:
        return None
    source: Any = node.args[0]
    if node.target in _CASTS and not _float_cast(node):
        return None
    layout = state.layout(source)
    dims = rearranged(node, layout.dims)
    return None if dims is None else Layout(dims, layout.source, layout.matrix, layout.scale)


def only_moves(node: fx.Node) -> bool:
    """Whether a node rearranges its input's elements and at most rounds them to another floating dtype."""
    return node.op == "call_function" and (
        _float_cast(node) if node.target in _CASTS else node.target in REARRANGING
    )


def rearranged(node: fx.Node, dims: Dims) -> Dims | None:
    """The dimensions of a node that rearranges a tensor of these `dims`; None if it repeats elements."""
    if node.target in _PERMUTING:
        return tuple(dims[i] for i in permutation(node))
    return regroup([axis for dim in dims for axis in dim], shape_of(node))


def permutation(node: fx.Node) -> list[int]:
    """Which dimension of the input each dimension of a permuting node is."""
    source: Any = node.args[0]
    n = source.meta["val"].ndim
    order = list(range(n))
    if node.target is aten.permute.default:
        return [int(d) % n for d in arguments(node)[1]]
    if node.target is aten.numpy_T.default:
        return order[::-1]
    if n < 2:
        return order
    i, j = arguments(node)[1:] if node.target is aten.transpose.int else (n - 2, n - 1)
    i, j = int(i) % n, int(j) % n
    order[i], order[j] = order[j], order[i]
    return order


def scalar_factor(node: fx.Node) -> float | None:
    """The number that a node multiplies its first operand by, or None."""
    if node.target in (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar):
        x, factor = node.args[0], node.args[1]
        if (
            isinstance(x, fx.Node)
            and isinstance(factor, (int, float))
            and len(node.kwargs) == 0
            and factor != 0
        ):
            value, of = node.meta["val"], x.meta["val"]
            if value.dtype == of.dtype and value.dtype in FLOATS:
                return float(factor) if "mul" in str(node.target) else 1 / factor
    return None


def way_back(node: Any, scaled: bool = False) -> Iterator[fx.Node]:
    """The node and what it rearranges, whichever way; `scaled`: also through factors."""
    while True:
        yield node
        if not (only_moves(node) or (scaled and scalar_factor(node) is not None)):
            return
        node = node.args[0]


def is_product(node: Any) -> bool:
    """Whether a node multiplies matrices."""
    return isinstance(node, fx.Node) and node.target in (aten.bmm.default, aten.mm.default)


def clamps_only_overflow(node: fx.Node) -> bool:
    """Whether a clamp only keeps fp16 from overflowing, as between layers: bf16 does not overflow there.

    Within a region such a clamp is left out; what leaves the region is fp16 again and `bounds` holds for it.
    """
    return _clamp_bounds(node) is not None


def bounds(node: fx.Node) -> tuple[float, float] | None:
    """Between which numbers a tensor of fp16 lies because of clamps that the device leaves out, or None.

    Those of the clamp itself where the tensor is one, moved, cast or after gelu; after a sum of such tensors
    fp16's largest finite numbers, since the clamp was there to keep the sum finite.
    """
    low, high = -math.inf, math.inf
    for before in _elementwise(node):
        if (found := _clamp_bounds(before)) is not None:
            low, high = max(low, found[0]), min(high, found[1])
        if before.target is aten.add.Tensor and _clamped_before(before):
            largest = torch.finfo(torch.float16).max
            low, high = max(low, -largest), min(high, largest)
    return None if math.isinf(low) and math.isinf(high) else (low, high)


def _clamp_bounds(node: fx.Node) -> tuple[float, float] | None:
    if node.target not in (aten.clamp.default, aten.clamp.Tensor):
        return None
    given = dict(zip(("x", "min", "max"), arguments(node))) | dict(node.kwargs)
    low, high = given.get("min"), given.get("max")
    fp16 = node.meta["val"].dtype is torch.float16
    if not (fp16 and isinstance(low, (int, float)) and isinstance(high, (int, float))):
        return None
    if not (low <= -6e4 and high >= 6e4):
        return None
    return float(np.float16(low)), float(np.float16(high))


def _elementwise(node: Any) -> Iterator[fx.Node]:
    """The node and what it was before rearrangements, casts, copies, gelu and clamps."""
    while True:
        yield node
        if only_moves(node) or node.target is aten.gelu.default or _clamp_bounds(node) is not None:
            node = node.args[0]
        elif node.target is aten.copy.default:
            node = node.args[1]
        else:
            return


def _clamped_before(add: fx.Node) -> bool:
    """Whether an operand of a sum, or of a sum that is its operand, is clamped."""
    seen: set[fx.Node] = set()
    todo = [add]
    while todo:
        for operand in todo.pop().all_input_nodes:
            for node in _elementwise(operand):
                if node in seen:
                    break
                seen.add(node)
                if _clamp_bounds(node) is not None:
                    return True
                if node.target is aten.add.Tensor:
                    todo.append(node)
    return False


def is_weight(node: Any) -> bool:
    """Whether a tensor comes from the graph's inputs by data movement alone: it can be packed as a weight."""
    if not isinstance(node, fx.Node):
        return True
    value = node.meta.get("val")
    parts = value if isinstance(value, (tuple, list)) else [value]  # of a split: some of them
    if any(not isinstance(p, torch.Tensor) or any(not isinstance(s, int) for s in p.shape) for p in parts):
        return False
    if node.op in ("placeholder", "get_attr"):
        return True
    return (
        node.op == "call_function"
        and (node.target in _WEIGHT_OPS or node.target in _CONSTANTS)
        and all(is_weight(n) for n in node.all_input_nodes)
    )


def roots(node: fx.Node) -> set[fx.Node]:
    """The graph's inputs that a weight comes from."""
    if node.op in ("placeholder", "get_attr"):
        return {node}
    return set().union(*(roots(n) for n in node.all_input_nodes))


def _scaled(state: MatchState, node: fx.Node) -> Layout | None:
    factor = scalar_factor(node)
    if factor is None:
        return None
    layout = state.layout(arguments(node)[0])
    return Layout(layout.dims, layout.source, layout.matrix, layout.scale * factor)


def _overwritten(state: MatchState, node: fx.Node) -> Layout | None:
    """aten.copy(a, b), which is `a.copy_(b)` without the side effect, is b if it needs no broadcast."""
    _, source = arguments(node)[:2]
    a, b = node.meta["val"], source.meta["val"]
    if a.dtype not in FLOATS or b.dtype not in FLOATS or shape_of(node) != shape_of(source):
        return None
    return state.layout(source)


def _float_cast(node: fx.Node) -> bool:
    source: Any = node.args[0]
    a, b = source.meta["val"], node.meta["val"]
    return a.dtype in FLOATS and b.dtype in FLOATS and a.device == b.device
