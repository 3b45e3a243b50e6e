"""Attention: scaled_dot_product_attention as an op, and softmax(scale q k^T) v written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from torch_xdna.lowering.ops import HEAD_SIZE, Attention
from torch_xdna.matching.layout import Axis, Dim, Dims, fresh, full, normal, numel, regroup
from torch_xdna.matching.refusal import SYMBOLIC, Refusal
from torch_xdna.matching.rows import module_path, only_value, softmax_input
from torch_xdna.matching.state import Layout, Match, MatchState, Matrix, arguments, shape_of, unfit
from torch_xdna.matching.views import is_product, only_moves, rearranged, scalar_factor, way_back

aten = torch.ops.aten

MASKED = Refusal("its attention is masked, the device attends to every key")
CAUSAL = Refusal("its attention is causal, the device attends to every key")
DROPOUT = Refusal("its attention has dropout: call model.eval()")


def fused(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten's scaled_dot_product_attention and the CPU kernel that it becomes; q, k, v are (..., time, 64)."""
    op: Any = node.target
    args = {a.name: a.default_value for a in op._schema.arguments}
    args |= dict(zip(args, node.args)) | dict(node.kwargs)
    if args.get("attn_mask") is not None:
        return MASKED
    if args.get("is_causal"):
        return CAUSAL
    if args.get("dropout_p"):
        return DROPOUT
    q, k, v = args["query"], args["key"], args["value"]
    several = node.target is not aten.scaled_dot_product_attention.default
    value = only_value(node) if several else node
    if isinstance(value, Refusal):
        return value
    scale = args.get("scale")
    if isinstance(scale, fx.Node):  # computed from a symbolic size
        return SYMBOLIC
    return _attention(state, value, (q, k, v), False, scale, (node,) if several else ())


def written_out(state: MatchState, node: fx.Node) -> Match | Refusal | None:
    """bmm or mm of softmax(scale q k^T) with v; None if the first factor is no softmax of scores."""
    weights, v = arguments(node)
    chain = list(way_back(weights))
    last = chain[-1]
    if _is_dropout(last):
        return DROPOUT if _back_to_softmax(last) else None
    x = softmax_input(last)
    if x is None:
        return None
    scale, steps = 1.0, []
    for step in way_back(x, scaled=True):
        scale *= scalar_factor(step) or 1.0
        steps.append(step)
    scores = steps[-1]
    if scores.target in (aten.add.Tensor, aten.where.self, aten.masked_fill.Scalar):
        return MASKED if any(is_product(n) for n in way_back(scores.args[0], True)) else None
    if not is_product(scores) or not _in_place(steps, chain):
        return None
    q, kt = scores.args
    inner = (*chain, *steps)
    return _attention(
        state, node, (q, kt, v), True, scale, tuple(n for n in inner if n.op == "call_function")
    )


def _attention(
    state: MatchState,
    node: fx.Node,
    qkv: tuple[Any, Any, Any],
    k_transposed: bool,
    scale: float | None,
    absorbs: tuple[fx.Node, ...],
) -> Match | Refusal:
    for operand in qkv:
        if (refusal := unfit(operand)) is not None:
            return refusal
    q, _, v = qkv
    head_sizes = shape_of(q)[-1], shape_of(v)[-1]
    if not all(isinstance(size, int) for size in head_sizes):
        return SYMBOLIC
    if head_sizes != (HEAD_SIZE, HEAD_SIZE):
        return Refusal(f"its head size is {head_sizes[0]}, the device's attention has {HEAD_SIZE}")
    scale = 1 / math.sqrt(HEAD_SIZE) if scale is None else float(scale)
    layouts = [state.layout(n) for n in qkv]
    if layouts[2].scale != 1:
        layouts[2] = state.rebase(v)
    if k_transposed:
        layouts[1] = _swapped(layouts[1])
    split = next((s for s in map(_clips_and_heads, layouts) if s is not None), None)
    if split is None:
        split = _default_split(layouts[0])
    clips, heads = split
    if not isinstance(heads, int):
        return SYMBOLIC
    lead = _lead(clips, heads)
    if numel(a for d in layouts[0].dims[:-2] for a in d) != clips * heads:
        return Refusal("its queries, keys and values are not the same clips and heads")
    operands: list[Matrix] = []
    for i, layout in enumerate(layouts):
        bound = _operand(state, qkv[i], layout, clips, heads, i == 1 and k_transposed)
        if isinstance(bound, Refusal):
            return bound
        scale *= layout.scale if layout.matrix is bound or layout.source is bound.node else 1.0
        operands.append(bound)
    query, key, value = operands
    outer = regroup(lead, shape_of(node)[:-2])
    if outer is None:
        return Refusal("its leading dimensions are not clips times heads")
    dims: Dims = (*outer, full("r", query.rows), full("c", HEAD_SIZE))
    name = module_path(node)
    return state.emit(
        node,
        lambda out: Attention(out, query.id, key.id, value.id, heads, scale, name=name),
        clips, query.rows, heads * HEAD_SIZE, dims, absorbs,
    )  # fmt: skip


def _operand(
    state: MatchState, node: fx.Node, layout: Layout, clips: Any, heads: int, transposed: bool
) -> Matrix | Refusal:
    """The (time, 64 heads) matrix of each clip behind q, k or v."""
    if layout.matrix is not None:
        if _clips_and_heads(layout) == (clips, heads):
            return layout.matrix
        layout = state.rebase(node)
        layout = _swapped(layout) if transposed else layout
    groups = regroup([a for d in layout.dims[:-2] for a in d], [clips, heads])
    if groups is None:
        layout = state.rebase(node)
        layout = _swapped(layout) if transposed else layout
        groups = regroup([a for d in layout.dims[:-2] for a in d], [clips, heads])
    if groups is None:
        return Refusal("its queries, keys and values are not the same clips and heads")
    recut = Layout((*groups, *layout.dims[-2:]), layout.source, None, layout.scale)
    return state.bind(recut, groups[0], recut.dims[-2], (*groups[1], *recut.dims[-1]))[0]


def _clips_and_heads(layout: Layout) -> tuple[Any, int] | None:
    """(clips, heads) if the layout is a matrix's heads side by side, else None."""
    m = layout.matrix
    if m is None or m.cols % HEAD_SIZE or len(layout.dims) < 2:
        return None
    heads = m.cols // HEAD_SIZE
    shape: tuple[Dim, ...] = (
        normal(a for d in layout.dims[:-2] for a in d),
        layout.dims[-2],
        layout.dims[-1],
    )
    return (
        (m.batch, heads)
        if shape == (_lead(m.batch, heads), full("r", m.rows), full("c", HEAD_SIZE))
        else None
    )


def _default_split(layout: Layout) -> tuple[Any, int]:
    """Clips and heads of a tensor that has no roles yet: its first dimension, and the others before time."""
    lead = [a for d in layout.dims[:-2] for a in d]
    first = [a for a in lead if a.role == "0"] if len(shape_of(layout.source)) > 2 else []
    return numel(first), numel(a for a in lead if a not in first)


def _lead(clips: Any, heads: int) -> Dim:
    return normal((*full("b", clips), Axis("c", HEAD_SIZE, heads)))


def _swapped(layout: Layout) -> Layout:
    *lead, a, b = layout.dims
    return Layout((*lead, b, a), layout.source, layout.matrix, layout.scale)


def _in_place(to_softmax: Sequence[fx.Node], to_product: Sequence[fx.Node]) -> bool:
    """Whether the softmax is over the scores' keys, and each probability meets the values where its score was.

    Each of the two is a way back, as `way_back` goes it: from the softmax to the scores, from the second product
    to the softmax. Sizes say nothing here: a square of scores is as large transposed.
    """
    scores = fresh(shape_of(to_softmax[-1]))
    dims = _through(to_softmax, scores)
    if dims is None or dims[-1] != scores[-1]:
        return False
    dims = _through(to_product, dims)
    if dims is None or dims[-2:] != scores[-2:]:
        return False
    lead, expected = (normal(a for d in these[:-2] for a in d) for these in (dims, scores))
    return lead == expected


def _through(way_back: Sequence[fx.Node], dims: Dims) -> Dims | None:
    """What becomes of the dimensions of the way's end at its start."""
    for node in reversed(way_back[:-1]):
        moved = rearranged(node, dims) if only_moves(node) else dims
        if moved is None:
            return None
        dims = moved
    return dims


def _is_dropout(node: fx.Node) -> bool:
    source = node.args[0] if node.op == "call_function" and node.args else None
    return isinstance(source, fx.Node) and source.target is aten.native_dropout.default


def _back_to_softmax(node: fx.Node) -> bool:
    dropped: Any = node.args[0]
    return any(softmax_input(n) is not None for n in way_back(dropped.args[0]))
