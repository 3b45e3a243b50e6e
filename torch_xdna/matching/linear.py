"""Matrix products with a weight: linear, addmm, mm, a batch of them with one weight, conv1d."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from torch_xdna.lowering.ops import Add, Conv1d, Linear
from torch_xdna.matching.layout import Axis, Dims, fresh, full, size_of
from torch_xdna.matching.refusal import SYMBOLIC, Refusal
from torch_xdna.matching.state import Match, MatchState, arguments, shape_of, unfit
from torch_xdna.matching.views import is_weight, only_moves, permutation, rearranged

aten = torch.ops.aten

COMPUTED = Refusal(
    "both factors are computed in the graph: the device multiplies by weights, "
    "and activations only within attention, softmax(q k^T) v"
)


def linear(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.linear(x, weight (n, k), bias)."""
    x, weight, bias = (*node.args, None)[:3]
    return product(state, node, x, weight, transposed=False, bias=bias)


def mm(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.mm(x, weight (k, n))."""
    return product(state, node, node.args[0], node.args[1], transposed=True)


def addmm(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.addmm(bias or residual, x, weight (k, n))."""
    if node.kwargs.get("beta", 1) != 1 or node.kwargs.get("alpha", 1) != 1:
        return Refusal("addmm has alpha or beta other than 1, the device adds without a factor")
    added, x, weight = arguments(node)
    columns = shape_of(node)[-1:]
    if shape_of(added) == columns or shape_of(added) == (1, *columns):
        return product(state, node, x, weight, transposed=True, bias=added)
    return Refusal(
        "addmm adds a whole matrix: write it as x @ w + matrix, which the device takes as a residual"
    )


def bmm(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.bmm(x, weight (k, n) expanded over the batch): how a linear over a non-contiguous x arrives."""
    x, weight = arguments(node)
    shared = _unexpanded(weight)
    if shared is None:
        return (
            COMPUTED if not is_weight(weight) else Refusal("each entry of the batch has a weight of its own")
        )
    return product(state, node, x, shared, transposed=True)


def product(
    state: MatchState, node: fx.Node, x: Any, weight: Any, *, transposed: bool, bias: Any = None
) -> Match | Refusal:
    """x (..., k) times weight: (n, k), or (k, n) if `transposed`."""
    if (refusal := weights_refusal(weight, bias)) is not None:
        return refusal
    found = state.rows_and_dims(x)
    if isinstance(found, Refusal):
        return found
    matrix, dims = found
    weight, transposed = _direct(weight, transposed)
    n = int(shape_of(node)[-1])
    if bias is not None and not _along_columns(bias, n):
        return Refusal(
            f"its bias has the shape {list(shape_of(bias))}, the device adds one number to each of {n} columns"
        )
    names = state.param(weight), None if bias is None else state.param(bias, (n,))
    return state.emit(
        node,
        lambda out: Linear(out, matrix.id, names[0], names[1], transposed=transposed, name=layer_name(names[0])),
        matrix.batch, matrix.rows, n, (*dims[:-1], full("c", n)),
    )  # fmt: skip


def add_bias(
    state: MatchState, node: fx.Node, product_node: fx.Node, bias: fx.Node
) -> Match | Refusal | None:
    """A bias added after a product without one: the Linear with its bias. None if it is no such product."""
    layout = state.layout(product_node)
    match = state.matches.get(layout.matrix.node) if layout.matrix is not None else None
    if match is None or not isinstance(match.op, Linear) or match.op.bias is not None or layout.scale != 1:
        return None
    if layout.dims[-1:] != (full("c", match.matrix.cols),) or unfit(bias) is not None:
        return None
    op, name = match.op, state.param(bias, (match.matrix.cols,))
    made = state.emit(
        node,
        lambda out: Linear(out, op.x, op.weight, name, transposed=op.transposed, name=op.name),
        match.matrix.batch, match.matrix.rows, match.matrix.cols, layout.dims, (match.matrix.node,),
    )  # fmt: skip
    return made


def conv1d(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.convolution over (batch, channels, frames) as Whisper uses it: kernel 3, padding 1, stride 1 or 2."""
    x, weight, bias, stride = arguments(node)[:4]
    if (refusal := weights_refusal(weight, bias)) is not None:
        return refusal
    if (refusal := unfit(x)) is not None:
        return refusal
    frames = size_of(node.meta["val"].shape[2])
    layout = state.layout(x)
    m = layout.matrix
    if (
        m is None
        or layout.scale != 1
        or layout.dims != (full("b", m.batch), full("c", m.cols), full("r", m.rows))
    ):
        if m is not None or layout.scale != 1:
            layout = state.rebase(x)
        bound, _ = state.bind(layout, layout.dims[0], layout.dims[2], layout.dims[1])
        if isinstance(bound, Refusal):
            return bound
        m = bound
    matrix, n, step = m, int(shape_of(node)[1]), int(stride[0])
    names = state.param(weight), None if bias is None else state.param(bias)
    return state.emit(
        node,
        lambda out: Conv1d(out, matrix.id, names[0], names[1], stride=step, name=layer_name(names[0])),
        matrix.batch, frames, n, (full("b", matrix.batch), full("c", n), full("r", frames)),
    )  # fmt: skip


def added_weight(state: MatchState, node: fx.Node, x: fx.Node, weight: fx.Node) -> Match | Refusal:
    """x + weight, the same (rows, cols) for each clip: a position embedding."""
    found = state.matrix_of(x)
    if isinstance(found, Refusal):
        return found
    matrix, dims = found
    clip = [d for d in (full("r", matrix.rows), full("c", matrix.cols)) if d]
    if [d for d in dims if d] != [d for d in (full("b", matrix.batch), *clip) if d]:
        return Refusal(
            "a weight is added to a tensor whose last two dimensions are not the device's rows and columns"
        )
    shape = shape_of(weight)
    while shape and shape[0] == 1:
        shape = shape[1:]
    per_clip = matrix.rows, matrix.cols
    if not isinstance(matrix.rows, int):
        return SYMBOLIC
    # Its dimensions must lie on the tensor's rows and columns themselves: in a tensor of (batch, columns, 1) a
    # weight (columns, 1) does not lie along the rows, as many as there may be.
    fits = len(shape) <= 2 and all(s in (1, n) for s, n in zip(shape[::-1], per_clip[::-1]))
    lies = zip(range(len(shape)), dims[::-1], (full("c", matrix.cols), full("r", matrix.rows)))
    if not fits or any(dim != role for _, dim, role in lies):
        return Refusal(
            f"a weight of shape {list(shape)} is added, the device adds one of (rows, columns) {per_clip}"
        )
    y = state.param(weight, per_clip)
    return state.emit(
        node,
        lambda out: Add(out, matrix.id, y, name=layer_name(y)),
        matrix.batch,
        matrix.rows,
        matrix.cols,
        dims,
    )


def _along_columns(bias: fx.Node, n: int) -> bool:
    """Whether a bias is one number, or one for each of `n` columns: (n, 1) would be one for each row."""
    *lead, columns = shape_of(bias) or (1,)
    return columns in (1, n) and all(size == 1 for size in lead)


def weights_refusal(weight: Any, bias: Any) -> Refusal | None:
    for node, what in ((weight, "weight"), (bias, "bias")):
        if node is None:
            continue
        if not is_weight(node):
            return COMPUTED if what == "weight" else Refusal("its bias is computed in the graph")
        if (refusal := unfit(node)) is not None:
            return Refusal(f"its {what} does not fit: {refusal}")
    return None


def _direct(weight: fx.Node, transposed: bool) -> tuple[fx.Node, bool]:
    """The weight as it is stored: a transposition is the device's to undo."""
    while (
        weight.op == "call_function"
        and str(weight.target) in ("aten.t.default", "aten.transpose.int", "aten.permute.default")
        and permutation(weight) == [1, 0]
    ):
        weight, transposed = arguments(weight)[0], not transposed
    return weight, transposed


def _unexpanded(weight: Any) -> fx.Node | None:
    """The (k, n) weight that every entry of the batch shares, or None.

    What counts is how each dimension came about: with as many entries as rows, (k, n) repeated along the rows
    has the same shape as one repeated along the batch.
    """
    way, node = [], weight
    while isinstance(node, fx.Node) and only_moves(node):
        way.append(node)
        node = arguments(node)[0]
        if node.meta["val"].ndim == 2 and is_weight(node):
            dims = _repeated(way, fresh(shape_of(node)))
            if dims is not None and dims[1:] == fresh(shape_of(node)):
                return node if all(a.role == _REPEATED for a in dims[0]) else None
    return None


_REPEATED = "*"  # the role of an axis along which elements are repeated


def _repeated(way_back: list[fx.Node], dims: Dims) -> Dims | None:
    """What becomes of the dimensions of the way's end at its start, repetitions included."""
    for node in reversed(way_back):
        if node.target is aten.expand.default:
            shape = shape_of(node)
            dims = ((),) * (len(shape) - len(dims)) + dims
            dims = tuple(d or ((Axis(_REPEATED, 1, n),) if n != 1 else ()) for d, n in zip(dims, shape))
            continue
        moved = rearranged(node, dims)
        if moved is None:
            return None
        dims = moved
    return dims


def layer_name(param: str) -> str:
    return param.removesuffix(".weight").removesuffix(".weight.embedding")
