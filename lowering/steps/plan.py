"""Region -> steps: which buffers exist, in which order of blocks, and what runs on the array one after
another.

Choices made here:
- Linear layers over the same input (q, k, v projections) become one product with several sets of panels, so
  that their common left side is announced once and the cores never drain in between.
- A linear layer whose only reader is attention, as keys or values, writes that order directly. Any other
  value in these orders is made by a product without k blocks: the value passes the accumulator as a residual,
  exactly.
- Convolutions: `lowering.steps.convolution`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch_xdna.kernels_xdna1.contract import BlockOrder
from torch_xdna.lowering import limits, ops
from torch_xdna.lowering.buffers import ACTIVATIONS, Buffer, Matrix, Planes
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.host_data.blocks import blocks_of
from torch_xdna.lowering.host_data.fills import NormFill, OutputTake, PanelFill, ParameterFill
from torch_xdna.lowering.steps.builder import StepBuilder, StepList
from torch_xdna.lowering.steps.convolution import convolution
from torch_xdna.lowering.steps.kinds import AttentionStep, GemmStep, Panels, RowStep


def plan_steps(region: ops.Region, *, headers_with_inputs: bool = False) -> StepList:
    """The steps of a region; `headers_with_inputs`: see `lowering.lengths`. Raises `LoweringError` (or `LimitError`)
    for what the array can't run."""
    return _Planner(region, headers_with_inputs).run()


class _Planner(StepBuilder):
    """A method for each op but convolutions."""

    def run(self) -> StepList:
        for index, value in enumerate(self.region.inputs):
            self.host_input(index, value)
        lower: dict[type[ops.Op], Callable] = {
            ops.Linear: self._linear,
            ops.Conv1d: lambda op: convolution(self, op),
            ops.LayerNorm: self._layer_norm,
            ops.Softmax: self._softmax,
            ops.Gelu: self._gelu,
            ops.Add: self._add,
            ops.Attention: self._attention,
        }
        for op in self.region.ops:
            if type(op) not in lower:
                raise LoweringError(f"{self.who(op)}: the overlay has no such op; leave it on the CPU")
            lower[type(op)](op)
            if op.out not in self.planes:
                self._reorder(op.out)
        for value in self.region.outputs:
            v = self.values[value]
            self.list.outputs.append(OutputTake(self.matrices[value], v.rows, v.cols))
        return self.list

    # Products

    def _linear(self, op: ops.Linear) -> None:
        x, out = self.values[op.x], self.values[op.out]
        shape = f"{x.rows} x {x.cols} -> {out.cols}"
        step = self.joined.get(op.x) if op.residual is None else None
        if step is None or step is not self.list.steps[-1]:  # joining early would keep results alive for long
            planes = Planes(self.matrices[op.x], blocks_of(x.cols))
            residual = None if op.residual is None else self.matrices[op.residual]
            header = self.header(op.name)
            step = GemmStep(op.name, shape, header, planes, planes.matrix.groups, residual=residual)
            self.list.steps.append(step)
            if op.residual is None:
                self.joined[op.x] = step
        filler = PanelFill(op.weight, op.bias, step.k_blocks, BlockOrder.A, op.activation, op.transposed)
        self.add_panels(step, op.out, filler, op.name, shape)

    def _reorder(self, value: int) -> None:
        """Make the K and V orders that `value` is wanted in beside its A order."""
        forms = self.forms[value]
        if len(forms) == 1 and (forms[0][0] == BlockOrder.A or value not in self.matrices):
            return
        v = self.values[value]
        for order, pair in forms:
            if order == BlockOrder.A or pair is None:
                continue
            target = self.pair(pair)
            name = f"{v.name or value} as {'keys' if order == BlockOrder.KEYS else 'values'}"
            header = self.header(name)
            weights = self.weights(target.heads, ParameterFill(order), name)
            panels = [Panels(target, order, target.heads, weights)]
            x = self.matrices[value]
            self.list.steps.append(GemmStep.reorder(name, f"{v.rows} x {v.cols}", header, panels, x))

    # Row ops and attention

    def _row_step(self, kind: str, op: ops.Op, eps: float = 0.0, y: Matrix | None = None) -> None:
        out = self.values[op.out]
        x, target = self.matrices[op.inputs[0]], self.value_matrix(op.out)
        header = self.header(op.name or kind)
        shape = f"{out.rows} x {out.cols}"
        self.list.steps.append(RowStep(op.name or kind, shape, header, kind, x, target, out.cols, y, eps))

    def _layer_norm(self, op: ops.LayerNorm) -> None:
        width = self.values[op.out].cols
        limits.NORM_WIDTH.check(width, f"the width of {self.who(op)}")
        self._row_step("layer_norm", op, op.eps)
        vectors = self.weights(2, NormFill(op.gamma, op.beta, width), op.name)  # directly after the header
        if self.headers_with_inputs:
            step = self.list.steps[-1]
            assert isinstance(step, RowStep)
            step.vectors = vectors

    def _softmax(self, op: ops.Softmax) -> None:
        limits.SOFTMAX_WIDTH.check(self.values[op.out].cols, f"the width of {self.who(op)}")
        self._row_step("softmax", op)

    def _gelu(self, op: ops.Gelu) -> None:
        self._row_step("gelu", op)

    def _add(self, op: ops.Add) -> None:
        out = self.values[op.out]
        y = self.parameter(op.y, out.rows, out.cols) if isinstance(op.y, str) else self.matrices[op.y]
        self._row_step("add", op, y=y)

    def _attention(self, op: ops.Attention) -> None:
        q, k = self.values[op.q], self.values[op.k]
        if q.cols != ops.HEAD_SIZE * op.heads or k.cols != q.cols:
            raise LoweringError(
                f"{self.who(op)}: {op.heads} heads of {q.cols / op.heads:g}; only heads of "
                f"{ops.HEAD_SIZE} are lowered, leave it on the CPU"
            )
        out = self.value_matrix(op.out)
        if out.col_blocks != op.heads and any(
            self._reads_padding(reader, op.out) for reader in self.readers[op.out]
        ):
            self._zero_last_columns(out, op.name)
        header = self.header(op.name)
        shape = f"{op.heads} heads, {q.rows} x {k.rows}"
        pair = self.pair((op.k, op.v))
        spare = Buffer(ACTIVATIONS, limits.CORE_ROWS * limits.COLUMNS.maximum, f"{op.name} spare")
        self.list.steps.append(
            AttentionStep(
                op.name, shape, header, self.matrices[op.q], pair, out, op.heads, k.rows, op.scale, spare
            )
        )

    def _reads_padding(self, reader: ops.Op, value: int) -> bool:
        """Whether an op reads whole rows of block columns; products and queries read only the true ones."""
        if isinstance(reader, ops.Attention):
            return value in (reader.k, reader.v)
        return not isinstance(reader, ops.Linear) or reader.residual == value

    def _zero_last_columns(self, matrix: Matrix, name: str) -> None:
        """Write zeros to the last four block columns; attention then writes the true ones among them."""
        header = self.header(f"{name} padding")
        weights = self.weights(limits.CORE_ROWS, ParameterFill(BlockOrder.A), f"{name} padding")
        first = matrix.col_blocks - limits.CORE_ROWS
        panels = [Panels(matrix, BlockOrder.A, limits.CORE_ROWS, weights, first)]
        shape = f"{limits.BLOCK * matrix.row_blocks} x {limits.BLOCK * limits.CORE_ROWS}"
        self.list.steps.append(GemmStep.zeros(f"{name} padding", shape, header, panels, matrix.groups))
