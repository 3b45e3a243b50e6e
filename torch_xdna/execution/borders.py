"""At the border of a region: a tensor of the graph into the device's (batch, rows, cols), and back.

Both directions are views where the memory allows it. Going back, the result has exactly the shape, dtype
and strides that eager gives, taken from the trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from torch_xdna.matching.layout import Axis, Dims, pieces, size_of
from torch_xdna.matching.state import Window
from torch_xdna.matching.views import bounds

_ROLES = "brc"


def entering(dims: Dims, rows: int, cols: int, windows: Sequence[Window] = ()) -> Callable[[Tensor], Tensor]:
    """A function from the tensor to the device's (batch, rows, cols); `windows`: see matching.state.Matrix."""
    if windows:
        whole = entering(dims, rows, cols)
        return lambda t: whole(_as_windows(t, windows))
    if [_only_role(d) for d in dims] == ["b", "r", "c"]:
        return lambda t: t
    axes = [a for d in dims for a in d]
    split = [_static(a.size) for a in axes]
    order = _matrix_order(dims, axes)
    shape = (-1, rows, cols)
    if order == list(range(len(axes))):
        return lambda t: t.reshape(shape)
    if order == [0, 2, 1] and [_only_role(d) for d in dims] == ["b", "c", "r"]:
        return lambda t: t.transpose(1, 2)
    return lambda t: t.reshape(split).permute(order).reshape(shape)


def _as_windows(t: Tensor, windows: Sequence[Window]) -> Tensor:
    """(..., sizes) as (..., places, kernels): a view, or of a padded copy."""
    if any(w.padding for w in windows):
        t = torch.nn.functional.pad(t, [p for w in reversed(windows) for p in (w.padding, w.padding)])
    first = t.ndim - len(windows)
    for i, w in enumerate(windows):
        t = t.unfold(first + i, (w.kernel - 1) * w.dilation + 1, w.stride)[..., :: w.dilation]
    return t


def leaving(node: fx.Node, dims: Dims) -> Callable[[Tensor], Tensor]:
    """A function from the device's (batch, rows, cols) to the tensor that eager gives at `node`."""
    value = node.meta["val"]
    dtype = value.dtype
    axes = [a for d in dims for a in d]
    order = _matrix_order(dims, axes)
    split = [_static(axes[i].size) for i in order]
    back = sorted(range(len(order)), key=order.__getitem__)
    permuted = back != list(range(len(back)))
    shape = [_static(math.prod(a.size for a in d)) for d in dims]
    strides = _strides(value)
    clamped = bounds(node)

    def leave(t: Tensor) -> Tensor:
        if clamped is not None:
            t = t.float().clamp(*clamped)  # bf16 would round fp16's largest number up, to infinity
        if permuted:
            t = t.reshape(split).permute(back)
        t = t.reshape(shape)
        expected = strides(t.shape)
        if t.dtype is dtype and t.stride() == expected:
            return t
        if t.dtype is dtype and all(a == b or n == 1 for a, b, n in zip(t.stride(), expected, t.shape)):
            return t.as_strided(t.shape, expected)
        out = torch.empty_strided(t.shape, expected, dtype=dtype, device=t.device)
        return out.copy_(t)

    return leave


def _strides(value: Tensor) -> Callable[[Any], tuple[int, ...]]:
    """The strides of the traced tensor as a function of the real shape (they differ by the batch only)."""
    strides = tuple(size_of(s) for s in value.stride())
    if all(isinstance(s, int) for s in strides):
        return lambda shape: strides
    sizes = [size_of(s) for s in value.shape]
    hints = [int(s) if isinstance(s, int) else int(s.node.hint) for s in value.stride()]
    order = sorted(range(len(hints)), key=lambda i: (hints[i], sizes[i] != 1), reverse=True)

    def dense(shape: Any) -> tuple[int, ...]:
        out, step = [0] * len(shape), 1
        for i in reversed(order):
            out[i] = step
            step *= shape[i]
        return tuple(out)

    return dense


def _matrix_order(dims: Dims, axes: list[Axis]) -> list[int]:
    """The places in `axes` of the matrix's pieces: batch, rows, columns, each from the outermost in."""
    return [axes.index(a) for role in _ROLES for a in pieces(dims, role)]


def _only_role(dim: tuple[Axis, ...]) -> str | None:
    return dim[0].role if len(dim) == 1 and dim[0].stride == 1 else None


def _static(size: Any) -> int:
    return size if isinstance(size, int) else -1
