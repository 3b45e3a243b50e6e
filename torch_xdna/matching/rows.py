"""Ops over rows and elements: layer_norm, softmax, gelu, add."""

from __future__ import annotations

import operator
import re
from typing import Any

import torch
from torch import fx

from torch_xdna.lowering.limits import NORM_WIDTH, SOFTMAX_WIDTH
from torch_xdna.lowering.ops import Add, Gelu, LayerNorm, Softmax
from torch_xdna.matching import linear as products
from torch_xdna.matching.refusal import Refusal
from torch_xdna.matching.state import Match, MatchState, arguments, shape_of, unfit
from torch_xdna.matching.views import is_product, is_weight, roots, way_back

aten = torch.ops.aten

MASKED_OUT = Refusal(
    "its softmax gives zeros for rows that are masked out whole, the device's gives NaN: only a softmax of "
    "plain scores, q k^T, is without such rows"
)


def layer_norm(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.native_layer_norm(x, shape, gamma, beta, eps), over the last dimension."""
    x, shape, gamma, beta, eps = arguments(node)
    if len(shape) != 1:
        return Refusal(f"it normalises over {len(shape)} dimensions, the device over the last one")
    value = only_value(node)
    if isinstance(value, Refusal):
        return value
    for param, what in ((gamma, "weight"), (beta, "bias")):
        if param is not None and (not is_weight(param) or unfit(param)):
            return Refusal(f"its {what} is not a floating-point input of the graph")
    found = state.rows_and_dims(x)
    if isinstance(found, Refusal):
        return found
    matrix, dims = found
    if matrix.cols > NORM_WIDTH.maximum:
        return Refusal(
            f"its width {matrix.cols} exceeds the device's limit of {NORM_WIDTH.maximum} for layer_norm"
        )
    names = [None if p is None else state.param(p) for p in (gamma, beta)]
    name = (names[0] or module_path(node)).removesuffix(".weight")
    return state.emit(
        value,
        lambda out: LayerNorm(out, matrix.id, names[0], names[1], float(eps), name=name),
        matrix.batch, matrix.rows, matrix.cols, dims, (node,),
    )  # fmt: skip


def softmax(state: MatchState, node: fx.Node) -> Match | Refusal:
    """Softmax over the last dimension, in the forms that `softmax_input` knows."""
    x = softmax_input(node)
    if x is None:
        return Refusal("its softmax is not over the last dimension")
    if node.target in (aten._safe_softmax.default, aten.where.self) and not _never_masked(x):
        return MASKED_OUT
    found = state.rows_and_dims(x)
    if isinstance(found, Refusal):
        return found
    matrix, dims = found
    if matrix.cols > SOFTMAX_WIDTH.maximum:
        return Refusal(
            f"its width {matrix.cols} exceeds the device's limit of {SOFTMAX_WIDTH.maximum} for softmax"
        )
    name = module_path(node)
    return state.emit(
        node, lambda out: Softmax(out, matrix.id, name=name), matrix.batch, matrix.rows, matrix.cols, dims
    )


def gelu(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.gelu, erf form."""
    if node.kwargs.get("approximate", "none") != "none":
        return Refusal(
            "gelu's tanh form differs from the device's erf form by up to 5e-4, more than bf16 rounds where "
            "gelu is small: use approximate='none'"
        )
    x: Any = node.args[0]
    if (refusal := unfit(x)) is not None:
        return refusal
    found = state.matrix_of(x)
    if isinstance(found, Refusal):
        return found
    matrix, dims = found
    name = module_path(node)
    return state.emit(
        node, lambda out: Gelu(out, matrix.id, name=name), matrix.batch, matrix.rows, matrix.cols, dims
    )


def add(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.add of two tensors of one shape (residual), or of a weight that is the same for each clip."""
    x, y = arguments(node)
    if node.kwargs.get("alpha", 1) != 1:
        return Refusal("add has an alpha other than 1, the device adds without a factor")
    if not (isinstance(x, fx.Node) and isinstance(y, fx.Node)):
        return Refusal("it adds a number, the device adds tensors")
    for operand in (x, y):
        if (refusal := unfit(operand)) is not None:
            return refusal
    shape = shape_of(node)
    if not shape:
        return Refusal("it has no dimensions, the device computes matrices")
    x, y = (y, x) if _is_added_weight(state, x, shape) and not _is_added_weight(state, y, shape) else (x, y)
    if _is_added_weight(state, y, shape) and shape_of(x) == shape:
        if shape_of(y) == shape[-1:]:
            made = products.add_bias(state, node, x, y)
            if made is not None:
                return made
        return products.added_weight(state, node, x, y)
    if any(_as_long(shape_of(operand), shape) != shape for operand in (x, y)):
        return Refusal("it broadcasts one of two activations, the device adds tensors of one shape")
    if shape_of(x) != shape or (state.layout(x).matrix is None and state.layout(y).matrix is not None):
        x, y = y, x
    found = state.matrix_of(x)
    if isinstance(found, Refusal):
        return found
    matrix, dims = found
    other = state.bind_like(y, dims, matrix)
    if isinstance(other, Refusal):
        return other
    name = module_path(node)
    return state.emit(
        node,
        lambda out: Add(out, matrix.id, other.id, name=name),
        matrix.batch,
        matrix.rows,
        matrix.cols,
        dims,
    )


def softmax_input(node: fx.Node) -> fx.Node | None:
    """What a softmax over the last dimension is taken of, or None.

    Besides the op itself: the safe form, as an op and decomposed (rows of -inf only give zeros), and
    exp(x - max) / sum.
    """
    if node.op != "call_function":
        return None
    args: Any = arguments(node)
    if node.target in (aten._softmax.default, aten._safe_softmax.default, aten.softmax.int):
        return args[0] if args[1] in (-1, args[0].meta["val"].ndim - 1) else None
    if node.target is aten.where.self:
        return _safe_tail(node)
    if node.target is aten.div.Tensor and isinstance(args[1], fx.Node):
        return _exp_over_sum(node)
    return None


def only_value(node: fx.Node) -> fx.Node | Refusal:
    """The first result of an op with several, if the others are unused."""
    used = [u for u in node.users if u.target is operator.getitem]
    if len(used) != len(node.users) or any(u.args[1] != 0 for u in used):
        return Refusal("its statistics are used, the device gives its result only")
    return used[0] if used else Refusal("its result is unused")


def module_path(node: fx.Node) -> str:
    """The path of the module that a node comes from, as `layers.0.self_attn`."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return node.name
    path = list(stack.values())[-1][0]
    return re.sub(r"^[LG]\['\w+'\]\.?", "", str(path)) or node.name


def _as_long(shape: tuple, result: tuple) -> tuple:
    """A shape with the leading ones that broadcasting gives it."""
    return (1,) * (len(result) - len(shape)) + shape


def _is_added_weight(state: MatchState, node: fx.Node, shape: tuple) -> bool:
    if not is_weight(node):
        return False
    return len(shape_of(node)) < len(shape) or roots(node) <= state.static


def _safe_tail(node: fx.Node) -> fx.Node | None:
    """where(not any(not (x == -inf)), 0, softmax(x))."""
    condition, zero, result = arguments(node)
    if not isinstance(result, fx.Node) or (x := softmax_input(result)) is None:
        return None
    if not _is_zero(zero) or shape_of(node) != shape_of(result):
        return None
    chain = [aten.logical_not.default, aten.any.dim, aten.logical_not.default, aten.eq.Scalar]
    for target in chain:
        if not isinstance(condition, fx.Node) or condition.target is not target:
            return None
        last = condition
        condition = arguments(condition)[0]
        if target is aten.any.dim and not _keeps_last(last, x):
            return None
    return x if condition is x and last.args[1] == float("-inf") else None


def _never_masked(x: fx.Node) -> bool:
    """Whether a softmax is of a product as it is: its rows are -inf only if a factor is infinite or NaN.

    For such scores the device gives NaN, the safe softmax zeros.
    """
    return is_product(list(way_back(x, scaled=True))[-1])


def _is_zero(node: Any) -> bool:
    """Whether a tensor was made of zeros."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    if node.target in (aten.zeros.default, aten.zeros_like.default):
        return True
    if node.target in (aten.full.default, aten.full_like.default):
        return bool(node.args[1] == 0)
    return bool(node.target is aten.scalar_tensor.default and node.args[0] == 0)


def _exp_over_sum(node: fx.Node) -> fx.Node | None:
    """exp(x - amax(x, -1)) / sum(exp(x - amax(x, -1)), -1)."""
    top, bottom = arguments(node)
    if not (isinstance(top, fx.Node) and isinstance(bottom, fx.Node)) or top.target is not aten.exp.default:
        return None
    shifted: Any = top.args[0]
    if (
        bottom.target is not aten.sum.dim_IntList
        or bottom.args[0] is not top
        or shifted.target is not aten.sub.Tensor
    ):
        return None
    x, peak = arguments(shifted)
    while isinstance(peak, fx.Node) and peak.target is aten.detach.default:
        peak = arguments(peak)[0]
    if isinstance(peak, fx.Node) and peak.target is operator.getitem and peak.args[1] == 0:
        peak = arguments(peak)[0]  # max returns its values first
    if (
        not isinstance(peak, fx.Node)
        or peak.target not in (aten.amax.default, aten.max.dim)
        or peak.args[0] is not x
    ):
        return None
    if not isinstance(x, fx.Node):
        return None
    return x if _keeps_last(bottom, x) and _keeps_last(peak, x) else None


def _keeps_last(node: fx.Node, x: fx.Node) -> bool:
    """Whether a reduction of `x` is over its last dimension, which stays as one of size 1."""
    last = x.meta["val"].ndim - 1
    return node.args[1] in (-1, last, [-1], [last]) and node.args[2:] == (True,) and not node.kwargs
