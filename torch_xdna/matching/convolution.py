"""Convolutions: those that are a matrix product in disguise, and Whisper's own.

A conv1d of kernel 1 is a linear layer over the channels. A convolution whose kernel is its stride (the patch embedding
of a vision model) sees each input element once: a linear layer over patches, whose elements are columns.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from lowering.ops import Linear
from torch_xdna.matching import linear as products
from torch_xdna.matching.layout import Axis, Dims, full, normal, size_of
from torch_xdna.matching.refusal import SYMBOLIC, Refusal
from torch_xdna.matching.state import Layout, Match, MatchState, Matrix, arguments, shape_of, unfit


def convolution(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.convolution over (batch, channels, size) or (batch, channels, height, width)."""
    x, weight, bias, stride, padding, dilation, backward, _, groups = arguments(node)
    kernel = list(shape_of(weight)[2:])
    patches = list(stride) == kernel or kernel == [1] * len(kernel)
    plain = not any(padding) and not backward and groups == 1 and set(dilation) == {1}
    if not (patches and plain and len(kernel) <= 2 and len(shape_of(x)) == len(kernel) + 2):
        if len(kernel) == 1:
            return products.conv1d(state, node)
        return _refusal(kernel, stride, padding, dilation, backward, groups)
    if (refusal := products.weights_refusal(weight, bias) or unfit(x)) is not None:
        return refusal
    if list(stride) != kernel:
        return Refusal(f"its kernel is 1, its stride {list(stride)}: the device takes stride 1 with kernel 1")
    sizes = [size_of(s) for s in shape_of(x)[2:]]
    if len(kernel) == 2 and not all(isinstance(s, int) for s in sizes):
        return SYMBOLIC
    if any(k != 1 and (not isinstance(s, int) or s % k) for s, k in zip(sizes, kernel)):
        return Refusal(
            f"its input of {' x '.join(map(str, sizes))} is no whole number of patches of "
            f"{' x '.join(map(str, kernel))}: resize or crop the input"
        )
    found = _patches(state, x, kernel)
    if isinstance(found, Refusal):
        return found
    n, columns = int(shape_of(node)[1]), found.cols
    names = state.param(weight, (n, columns)), None if bias is None else state.param(bias)
    return state.emit(
        node,
        lambda out: Linear(out, found.id, names[0], names[1], name=products.layer_name(names[0])),
        found.batch, found.rows, n, _result_dims(found, n, shape_of(node)[2:]),
    )  # fmt: skip


def _patches(state: MatchState, x: fx.Node, kernel: list[int]) -> Matrix | Refusal:
    """The matrix of each clip's patches: rows in the picture's order, columns as the kernel has them."""
    layout = state.layout(x)
    m = layout.matrix
    if m is not None and (kernel, layout.scale) == ([1], 1):
        whole = full("b", m.batch), full("c", m.cols), full("r", m.rows)
        if layout.dims == whole:
            return m
    if m is not None or layout.scale != 1 or kernel != [1]:
        layout = state.rebase(x)
    batch, channels, *spatial = layout.dims
    outer, inner = zip(*(_cut(dim, k) for dim, k in zip(spatial, kernel)))
    dims: Dims = (batch, channels, *(o + i for o, i in zip(outer, inner)))
    rows, columns = sum(outer, ()), channels + sum(inner, ())
    return state.bind(Layout(dims, layout.source), batch, rows, columns)[0]


def _cut(dim: tuple[Axis, ...], size: int) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """A spatial dimension as (patches, elements of a patch)."""
    if size == 1:
        return dim, ()
    (axis,) = dim
    patches = axis.size // size
    outer = Axis(axis.role, axis.stride * size, patches)
    return (outer,) if patches != 1 else (), (Axis(axis.role, axis.stride, size),)


def _result_dims(matrix: Matrix, n: int, spatial: tuple[Any, ...]) -> Dims:
    """(batch, n, ...): the rows are the spatial dimensions, the last one innermost."""
    dims, stride = [], 1
    for size in reversed(spatial):
        dims.append(normal([Axis("r", stride, size)]))
        stride = stride * size
    return (full("b", matrix.batch), full("c", n), *reversed(dims))


def _refusal(kernel: list, stride: Any, padding: Any, dilation: Any, backward: bool, groups: int) -> Refusal:
    if len(kernel) != 2:
        return Refusal(f"the device takes conv1d and conv2d, this convolution has {len(kernel)} dimensions")
    return Refusal(
        "the device takes conv2d only where the stride is the kernel, without padding, dilation or groups; "
        f"this one has kernel {kernel}, padding {list(padding)}, stride {list(stride)}, "
        f"dilation {list(dilation)}, groups {groups}" + (", transposed" if backward else "")
    )
