"""Convolutions as matrix products: Whisper's own on the array, a kernel of 1 in place, all others over their windows.

- conv1d of kernel 3, padding 1 and stride 1 or 2: the array gathers the frames itself (`linear.conv1d`).
- A conv1d of kernel 1 is a linear layer over the channels of what the device holds.
- Any other of one group and one or two dimensions is a linear layer over windows: the tensor enters a region as (rows:
  places of the kernel, columns: channels x kernel), which the host writes from a view. Where stride = kernel, as in a
  patch embedding, each element is written once; else kernel / stride times. The rows of what is on the array can't be
  shifted, so such a convolution begins a region.
"""

from __future__ import annotations

import math
from typing import Any

from torch import fx

from torch_xdna.lowering.ops import Conv1d, Gelu, Linear
from torch_xdna.matching import linear as products
from torch_xdna.matching.layout import Axis, Dims, full, normal
from torch_xdna.matching.refusal import SYMBOLIC, Refusal
from torch_xdna.matching.state import Match, MatchState, Matrix, Window, arguments, shape_of, unfit


def convolution(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.convolution over (batch, channels, size) or (batch, channels, height, width)."""
    x, weight, bias, strides, paddings, dilations, backward, _, groups = arguments(node)
    kernel = [int(k) for k in shape_of(weight)[2:]]
    given = (_each(values, len(kernel)) for values in (strides, paddings, dilations))
    windows = tuple(Window(*values) for values in zip(kernel, *given, strict=True))
    if len(kernel) > 2:
        return Refusal(f"the device takes conv1d and conv2d, this convolution has {len(kernel)} dimensions")
    if backward or groups != 1:
        return Refusal(
            f"the device takes convolutions of one group, this one has groups {groups}"
            + (", transposed" if backward else "")
        )
    if windows in [(Window(3, s, 1, 1),) for s in (1, 2)] and _gathers(state, x, strides[0]):
        return products.conv1d(state, node)
    if (refusal := products.weights_refusal(weight, bias) or unfit(x)) is not None:
        return refusal
    if len(kernel) == 2 and not all(isinstance(s, int) for s in shape_of(node)[2:]):
        return SYMBOLIC
    matrix = _channels(state, x) if windows == (Window(1, 1, 0, 1),) else None
    matrix = matrix or _windows(state, node, x, windows)
    n, columns = int(shape_of(node)[1]), matrix.cols
    names = state.param(weight, (n, columns)), None if bias is None else state.param(bias)
    return state.emit(
        node,
        lambda out: Linear(out, matrix.id, names[0], names[1], name=products.layer_name(names[0])),
        matrix.batch, matrix.rows, n,
        (full("b", matrix.batch), full("c", n), *_spatial(shape_of(node)[2:])),
    )  # fmt: skip


def _each(values: Any, dimensions: int) -> list[int]:
    """One number may stand for all dimensions, as `padding="valid"` gives it."""
    return [int(v) for v in values] * (dimensions if len(values) == 1 else 1)


def _gathers(state: MatchState, x: fx.Node, stride: int) -> bool:
    """Whether the array can gather the frames of `x`: those of the host, or of a convolution of the host's frames that
    it computes in planes for one of stride 2."""
    matrix = state.layout(x).matrix
    match = state.matches.get(matrix.node) if matrix else None
    if match is not None and isinstance(match.op, Gelu):
        match = state.matches.get(state.matrices[match.op.x].node)
    if matrix is None or match is None:
        return True
    op = match.op
    first = isinstance(op, Conv1d) and not state.computes(state.matrices[op.x])
    return first and isinstance(op, Conv1d) and (op.stride, stride) == (1, 2)


def _channels(state: MatchState, x: fx.Node) -> Matrix | None:
    """The matrix on the device whose columns are the channels of `x`, or None."""
    layout = state.layout(x)
    m = layout.matrix
    if m is None or layout.scale != 1:
        return None
    return m if layout.dims == (full("b", m.batch), full("c", m.cols), full("r", m.rows)) else None


def _windows(state: MatchState, node: fx.Node, x: fx.Node, windows: tuple[Window, ...]) -> Matrix:
    """The matrix of the places of the kernel: (batch, channels, places..., kernel...), rows in the places' order."""
    batch, channels = shape_of(x)[:2]
    places = shape_of(node)[2:]
    kernel = [w.kernel for w in windows]
    size = math.prod(kernel)
    inner, stride = [], 1
    for k in reversed(kernel):
        inner.append(normal([Axis("c", stride, k)]))
        stride *= k
    dims = (full("b", batch), normal([Axis("c", size, channels)]), *_spatial(places), *reversed(inner))
    return state.entry(x, dims, batch, math.prod(places), channels * size, windows)


def _spatial(sizes: tuple[Any, ...]) -> Dims:
    """Spatial dimensions as rows, the last one innermost."""
    dims, stride = [], 1
    for size in reversed(sizes):
        dims.append(normal([Axis("r", stride, size)]))
        stride = stride * size
    return tuple(reversed(dims))
