"""Where each element of a tensor lies in the device's matrix: how views are followed without moving data.

The device knows matrices (batch, rows, cols) only. A tensor of the graph is a rearrangement of such a
matrix: each of its dimensions is a product of axes, and an axis is a piece of the batch, the rows or the
columns. Splitting heads, merging batch and time, transposing: all of them only regroup axes, e.g. for 8
heads of 64

    (B, T, 512)         [b] [r] [c]
    (B, T, 8, 64)       [b] [r] [c:64x8] [c:1x64]
    (B, 8, T, 64)       [b] [c:64x8] [r] [c:1x64]
    (8 B, T, 64)        [b c:64x8] [r] [c:1x64]

Sizes are ints or sympy expressions (a symbolic batch).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

Size = Any  # int or sympy.Expr


def size_of(size: Any) -> Size:
    """A size of a tensor as int or sympy expression; adds no guard to the shape environment."""
    if isinstance(size, int):
        return size
    expr = size.node.expr
    return int(expr) if expr.is_Integer else expr


def at(size: Size, sizes: Mapping[Any, int]) -> int:
    """A size where its symbols have these values."""
    return size if isinstance(size, int) else int(size.xreplace(dict(sizes)))


def traced_sizes(graph: fx.Graph) -> dict[Any, int]:
    """What each symbol of a graph's sizes was when it was traced."""
    found: dict[Any, int] = {}
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        for size in value.shape if isinstance(value, torch.Tensor) else [value]:
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                found[size.node.expr] = int(size.node.hint)
    return found


@dataclass(frozen=True)
class Axis:
    """A piece of a role: element i of the axis is element i * stride of the role.

    Roles: "b", "r", "c" of a matrix; "0", "1", ... are the dimensions of a tensor that has no roles yet.
    """

    role: str
    stride: Size
    size: Size

    def __str__(self) -> str:
        return self.role if self.stride == 1 else f"{self.role}:{self.stride}x{self.size}"


Dim = tuple[Axis, ...]
Dims = tuple[Dim, ...]


def full(role: str, size: Size) -> Dim:
    """A dimension that is the whole of a role; nothing if its size is 1."""
    return () if size == 1 else (Axis(role, 1, size),)


def fresh(shape: Iterable[Size]) -> Dims:
    """The dimensions of a tensor that has no roles yet."""
    return tuple(full(str(i), s) for i, s in enumerate(shape))


def numel(axes: Iterable[Axis]) -> Size:
    product: Size = 1
    for axis in axes:
        product = product * axis.size
    return product


def dims_at(dims: Dims, sizes: Mapping[Any, int]) -> Dims:
    """Dimensions where the symbols have these values."""
    return tuple(tuple(Axis(a.role, at(a.stride, sizes), at(a.size, sizes)) for a in dim) for dim in dims)


def normal(axes: Iterable[Axis]) -> Dim:
    """Neighbours that continue each other merged, axes of size 1 dropped."""
    out: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        if out and out[-1].role == axis.role and out[-1].stride == axis.stride * axis.size:
            axis = Axis(axis.role, axis.stride, out.pop().size * axis.size)
        out.append(axis)
    return tuple(out)


def regroup(axes: Sequence[Axis], sizes: Sequence[Size]) -> Dims | None:
    """The axes, in order, cut into groups of the given sizes; None if a size cuts an axis unevenly."""
    rest = list(axes)
    groups: list[Dim] = []
    for size in sizes:
        need, group = size, []
        while need != 1:
            if not rest:
                return None
            axis = rest.pop(0)
            quotient = _divide(need, axis.size)
            if quotient is not None:
                need = quotient
            else:
                inner = _divide(axis.size, need)
                if inner is None:
                    return None
                rest.insert(0, Axis(axis.role, axis.stride, inner))
                axis = Axis(axis.role, axis.stride * inner, need)
                need = 1
            group.append(axis)
        groups.append(normal(group))
    return None if rest else tuple(groups)


def split_like(dims: Dims, like: Dims) -> dict[Axis, Dim] | None:
    """For each axis of `like` the axes of `dims` at the same place, or None if they do not line up."""
    if len(dims) != len(like):
        return None
    out: dict[Axis, Dim] = {}
    for dim, model in zip(dims, like):
        groups = regroup(dim, [axis.size for axis in model])
        if groups is None:
            return None
        out.update(zip(model, groups))
    return out


def pieces(dims: Dims, role: str) -> list[Axis]:
    """The axes of a role over all dimensions, outermost first."""
    found = [axis for dim in dims for axis in dim if axis.role == role]
    return sorted(found, key=_outer_first)


def _outer_first(axis: Axis) -> Any:
    # A symbolic stride is the product of static pieces with the batch: larger than any of them.
    return (0, -axis.stride) if isinstance(axis.stride, int) else (-1, 0)


def _divide(a: Size, b: Size) -> Size | None:
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    quotient = a / b
    if not quotient.is_integer:
        return None
    return int(quotient) if quotient.is_Integer else quotient
