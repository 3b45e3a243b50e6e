"""What matching knows while it walks a graph: layouts, matrices, weights, matches and refusals so far."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import fx

from torch_xdna.lowering.ops import Op
from torch_xdna.matching.layout import (
    Axis,
    Dims,
    Size,
    fresh,
    full,
    normal,
    numel,
    pieces,
    size_of,
    split_like,
)
from torch_xdna.matching.refusal import SYMBOLIC, Refusal

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class Window(NamedTuple):
    """Of a convolution, along one dimension."""

    kernel: int
    stride: int
    padding: int
    dilation: int


@dataclass(frozen=True)
class Matrix:
    """A value of the device, (batch, rows, cols), and the tensor of the graph that holds it, as `dims`. With
    `windows`, one for each of the last dimensions, the tensor's view as (..., places, kernels) is what holds it."""

    id: int
    batch: Size
    rows: Size
    cols: int
    node: fx.Node
    dims: Dims
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A tensor as a rearrangement of a matrix, or (`matrix` None) of the tensor `source` without roles yet.

    Elements are `scale` times those of the matrix; only attention can take a scale other than 1.
    """

    dims: Dims
    source: fx.Node
    matrix: Matrix | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Match:
    """A tensor of the graph that the device computes. `absorbs`: nodes that this makes unnecessary."""

    op: Op
    matrix: Matrix
    absorbs: tuple[fx.Node, ...] = ()


@dataclass(frozen=True)
class Weight:
    """A tensor of the graph that a region reads as a parameter of this shape (broadcast where smaller)."""

    node: fx.Node
    shape: tuple[int, ...]


@dataclass
class MatchState:
    """`names`: placeholder -> the user's name for it; `static`: those that are parameters or buffers."""

    names: dict[fx.Node, str] = field(default_factory=dict)
    static: frozenset[fx.Node] = frozenset()
    layouts: dict[fx.Node, Layout] = field(default_factory=dict)
    matches: dict[fx.Node, Match] = field(default_factory=dict)
    refusals: dict[fx.Node, Refusal] = field(default_factory=dict)
    matrices: dict[int, Matrix] = field(default_factory=dict)
    params: dict[str, Weight] = field(default_factory=dict)
    _entries: dict[tuple[fx.Node, Dims, tuple[Window, ...]], Matrix] = field(default_factory=dict)
    _param_names: dict[tuple[fx.Node, tuple[int, ...]], str] = field(default_factory=dict)

    # What the device makes of a tensor

    def layout(self, node: fx.Node) -> Layout:
        """The layout of a tensor; one that nothing is known about is its own source."""
        if node not in self.layouts:
            self.layouts[node] = Layout(fresh(shape_of(node)), node)
        return self.layouts[node]

    def matrix_of(self, node: fx.Node) -> tuple[Matrix, Dims] | Refusal:
        """The matrix behind `node` and how `node` arranges it, whichever way: for ops on elements."""
        layout = self.layout(node)
        if layout.matrix is not None and layout.scale == 1 and unfit(node) is None:
            return layout.matrix, layout.dims
        found = self.rows_and_dims(node)
        return self._last_as_rows(node) if found is SYMBOLIC else found

    def _last_as_rows(self, node: fx.Node) -> tuple[Matrix, Dims] | Refusal:
        """For ops on elements of (..., channels, time), where the time is symbolic: rows may be, columns not."""
        layout = self.layout(node)
        if layout.matrix is not None or layout.scale != 1:
            layout = self.rebase(node)
        if len(layout.dims) < 2:
            return SYMBOLIC
        lead = sorted((a for d in layout.dims[:-2] for a in d), key=_source_order)
        batch = _batch_of(lead, shape_of(layout.source))
        rows = [*(a for a in lead if a not in batch), *layout.dims[-1]]
        matrix, dims = self.bind(layout, batch, rows, layout.dims[-2])
        return matrix if isinstance(matrix, Refusal) else (matrix, dims)

    def rows_and_dims(self, node: fx.Node) -> tuple[Matrix, Dims] | Refusal:
        """The matrix whose columns are the last dimension of `node`, and how `node` arranges it."""
        matrix, dims = self._rows(node)
        return matrix if isinstance(matrix, Refusal) else (matrix, dims)

    def _rows(self, node: fx.Node) -> tuple[Matrix | Refusal, Dims]:
        if (refusal := unfit(node)) is not None:
            return refusal, ()
        layout = self.layout(node)
        if not layout.dims:
            return Refusal("it has no dimensions, the device computes matrices"), ()
        if layout.matrix is not None:
            if layout.scale == 1 and layout.dims[-1] == full("c", layout.matrix.cols):
                return layout.matrix, layout.dims
            layout = self.rebase(node)
        elif layout.scale != 1:
            layout = self.rebase(node)
        lead = sorted((a for d in layout.dims[:-1] for a in d), key=_source_order)
        batch = _batch_of(lead, shape_of(layout.source))
        rows = [a for a in lead if a not in batch]
        return self.bind(layout, batch, rows, layout.dims[-1])

    def rebase(self, node: fx.Node) -> Layout:
        """The tensor taken as it is: it leaves the device's form here and enters a later region anew."""
        return Layout(fresh(shape_of(node)), node)

    def bind(
        self, layout: Layout, batch: Iterable[Axis], rows: Iterable[Axis], cols: Iterable[Axis]
    ) -> tuple[Matrix | Refusal, Dims]:
        """Give the axes of a source their roles: the matrix that enters the device, the dims in its terms."""
        roles: dict[Axis, Axis] = {}
        sizes = {}
        for role, axes in (("b", list(batch)), ("r", list(rows)), ("c", list(cols))):
            sizes[role] = numel(axes)
            roles.update(_inside(Axis(role, 1, sizes[role]), axes))
        return self.bind_roles(layout, roles, sizes["b"], sizes["r"], sizes["c"])

    def bind_roles(
        self, layout: Layout, roles: dict[Axis, Axis], batch: Size, rows: Size, cols: Size
    ) -> tuple[Matrix | Refusal, Dims]:
        if not isinstance(cols, int):
            return SYMBOLIC, ()
        if not isinstance(batch, int) and len(batch.free_symbols) > 1:  # clips times something else
            return SYMBOLIC, ()
        source = layout.source
        dims = tuple(
            normal(roles[a] for a in pieces(layout.dims, str(i))) for i in range(len(shape_of(source)))
        )
        entry = self.entry(source, dims, batch, rows, cols)
        return entry, tuple(normal(roles[a] for a in dim) for dim in layout.dims)

    def entry(
        self,
        node: fx.Node,
        dims: Dims,
        batch: Size,
        rows: Size,
        cols: int,
        windows: tuple[Window, ...] = (),
    ) -> Matrix:
        """The matrix as which the tensor `node` enters the device."""
        key = (node, dims, windows)
        if key not in self._entries:
            self._entries[key] = self._matrix(batch, rows, cols, node, dims, windows)
        return self._entries[key]

    def bind_like(self, node: fx.Node, dims: Dims, matrix: Matrix) -> Matrix | Refusal:
        """The tensor `node` as a matrix of the shape of `matrix`, arranged as `dims`."""
        if (refusal := unfit(node)) is not None:
            return refusal
        layout = self._with_leading_ones(self.layout(node), len(dims))
        if layout.matrix is not None:
            m = layout.matrix
            if layout.scale == 1 and layout.dims == dims and (m.batch, m.rows, m.cols) == (
                matrix.batch, matrix.rows, matrix.cols
            ):  # fmt: skip
                return m
            layout = self._with_leading_ones(self.rebase(node), len(dims))
        elif layout.scale != 1:
            layout = self._with_leading_ones(self.rebase(node), len(dims))
        aligned = split_like(layout.dims, dims)
        if aligned is None:
            layout = self._with_leading_ones(self.rebase(node), len(dims))
            aligned = split_like(layout.dims, dims)
        if aligned is None:
            return Refusal("its two operands have different shapes")
        roles = {}
        for model, axes in aligned.items():
            roles.update(_inside(model, axes))
        # The axes as `split_like` cut them: the layout must be expressed in the same pieces.
        layout = Layout(tuple(tuple(a for m in dim for a in aligned[m]) for dim in dims), layout.source)
        return self.bind_roles(layout, roles, matrix.batch, matrix.rows, matrix.cols)[0]

    def _with_leading_ones(self, layout: Layout, dimensions: int) -> Layout:
        """As broadcasting gives them to the shorter of two operands."""
        ones: Dims = ((),) * (dimensions - len(layout.dims))
        return Layout((*ones, *layout.dims), layout.source, layout.matrix, layout.scale)

    # What matching finds

    def computes(self, matrix: Matrix) -> bool:
        """Whether an op writes this very matrix; else its tensor enters from outside, even if an op writes that
        tensor in another arrangement."""
        match = self.matches.get(matrix.node)
        return match is not None and match.matrix.id == matrix.id

    def emit(
        self,
        node: fx.Node,
        make: Callable[[int], Op],
        batch: Size,
        rows: Size,
        cols: int,
        dims: Dims,
        absorbs: tuple[fx.Node, ...] = (),
    ) -> Match:
        """The tensor `node`, arranged as `dims`, is what the op writes."""
        matrix = self._matrix(batch, rows, cols, node, dims)
        self.layouts[node] = Layout(dims, node, matrix)
        match = Match(make(matrix.id), matrix, absorbs)
        self.matches[node] = match
        return match

    def _matrix(
        self,
        batch: Size,
        rows: Size,
        cols: int,
        node: fx.Node,
        dims: Dims,
        windows: tuple[Window, ...] = (),
    ) -> Matrix:
        matrix = Matrix(len(self.matrices), batch, rows, cols, node, dims, windows)
        self.matrices[matrix.id] = matrix
        return matrix

    # Weights

    def param(self, node: fx.Node, shape: tuple[int, ...] | None = None) -> str:
        """The name under which a region reads the weight that `node` holds, as `shape` (default: its own)."""
        shape = tuple(int(s) for s in shape_of(node)) if shape is None else shape
        if (node, shape) not in self._param_names:
            name = self.names.get(node) or ".".join(self._describe(node))
            while name in self.params:
                name += "'"
            self._param_names[node, shape] = name
            self.params[name] = Weight(node, shape)
        return self._param_names[node, shape]

    def _describe(self, node: fx.Node) -> Iterable[str]:
        for source in node.all_input_nodes:
            yield self.names.get(source) or ".".join(self._describe(source))
        if node.target is operator.getitem:
            yield str(node.args[1])
        else:
            yield str(node.target).split(".")[1] if node.op == "call_function" else node.name


def shape_of(node: fx.Node) -> tuple[Size, ...]:
    """The shape of the tensor that a node gives, sizes as ints or sympy expressions."""
    return tuple(size_of(s) for s in node.meta["val"].shape)


def arguments(node: fx.Node) -> Any:
    """A node's positional arguments; what they are depends on its op."""
    return node.args


def unfit(node: fx.Node) -> Refusal | None:
    """Why a tensor can't enter the device, whatever the op."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return Refusal("its operand is not a tensor")
    if value.dtype not in FLOATS:
        return Refusal(f"its dtype is {_short(value.dtype)}, the device takes float32, bfloat16 and float16")
    if value.device.type not in ("cpu", "meta"):
        return Refusal(f"its tensors are on {value.device.type}: move the model to the CPU")
    if value.layout != torch.strided:
        return Refusal(f"its layout is {value.layout}, the device takes strided tensors")
    if any(isinstance(s, int) and s == 0 for s in value.shape):
        return Refusal("it is empty")
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _source_order(axis: Axis) -> tuple:
    return int(axis.role), 0 if not isinstance(axis.stride, int) else -axis.stride


def _batch_of(lead: list[Axis], shape: tuple[Size, ...]) -> list[Axis]:
    """The leading axes that are clips: a symbolic first dimension, or the first of three or more."""
    first = [a for a in lead if a.role == "0" and a.size == shape[0]]
    if first and (len(shape) >= 3 or _is_one_symbol(first[0].size)):
        return first
    return []


def _is_one_symbol(size: Size) -> bool:
    """A number of clips, if anything: a product of two symbols is clips times rows."""
    return not isinstance(size, int) and len(size.free_symbols) == 1


def _inside(model: Axis, axes: Iterable[Axis]) -> dict[Axis, Axis]:
    """Axes, outermost first, placed one inside the other within the piece `model` of a role."""
    out, stride = {}, model.stride
    for axis in reversed(list(axes)):
        out[axis] = Axis(model.role, stride, axis.size)
        stride = stride * axis.size
    return out
