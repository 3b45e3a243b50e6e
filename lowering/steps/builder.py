"""What planning needs at every op: values and who reads them in which order, buffers, weights, panels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from torch_xdna.kernels_xdna1.contract import BlockOrder
from torch_xdna.lowering import ops
from torch_xdna.lowering.buffers import ACTIVATIONS, WEIGHTS, Buffer, KeyValues, Matrix, Planes
from torch_xdna.lowering.host_data.blocks import padded_blocks
from torch_xdna.lowering.host_data.fills import InputFill, MatrixFill, OutputTake, PanelFill, WeightFiller
from torch_xdna.lowering.steps.kinds import GemmStep, Panels, Step

Pair = tuple[int, int]  # ids of an attention's keys and values


@dataclass
class StepList:
    """Steps in order, what fills the weights (in order of use), the inputs, and what to read back."""

    steps: list[Step] = field(default_factory=list)
    weights: list[tuple[Buffer, WeightFiller | None]] = field(default_factory=list)  # None: a step's header
    inputs: list[InputFill] = field(default_factory=list)
    outputs: list[OutputTake] = field(default_factory=list)


class StepBuilder:
    """A region's steps as they come into being. `headers_with_inputs`: see `lowering.lengths`."""

    def __init__(self, region: ops.Region, headers_with_inputs: bool) -> None:
        self.region = region
        self.headers_with_inputs = headers_with_inputs
        self.values = {v.id: v for v in region.values}
        self.shapes = {p.name: p.shape for p in region.params}
        self.list = StepList()
        self.matrices: dict[int, Matrix] = {}
        self.key_values: dict[Pair, KeyValues] = {}
        self.planes: dict[int, Planes] = {}
        self.joined: dict[int, GemmStep] = {}  # by input value: a product that more linear layers can join
        self.readers: dict[int, list[ops.Op]] = defaultdict(list)
        self.forms: dict[int, list[tuple[BlockOrder, Pair | None]]] = defaultdict(
            list
        )  # (order, pair) wanted of a value
        for op in region.ops:
            for value in op.inputs:
                self.readers[value].append(op)
            self.note_forms(op)
        for value in region.outputs:
            self.want(value, BlockOrder.A)

    def note_forms(self, op: ops.Op) -> None:
        if isinstance(op, ops.Attention):
            self.want(op.q, BlockOrder.A)
            self.want(op.k, BlockOrder.KEYS, (op.k, op.v))
            self.want(op.v, BlockOrder.VALUES, (op.k, op.v))
        elif isinstance(op, ops.Conv1d):
            if isinstance(op.residual, int):
                self.want(op.residual, BlockOrder.A)
        else:
            for value in op.inputs:
                self.want(value, BlockOrder.A)

    def want(self, value: int, order: BlockOrder, pair: Pair | None = None) -> None:
        if (order, pair) not in self.forms[value]:
            self.forms[value].append((order, pair))

    def who(self, op: ops.Op) -> str:
        shapes = " ".join(f"{self.values[i].rows}x{self.values[i].cols}" for i in op.inputs)
        return f"{type(op).__name__.lower()} {op.name} ({shapes})".replace("  ", " ")

    # Buffers

    def matrix(self, rows: int, cols: int, name: str, arg: int = ACTIVATIONS) -> Matrix:
        row_blocks, col_blocks = padded_blocks(rows), padded_blocks(cols)
        return Matrix(Buffer(arg, row_blocks * col_blocks, name), row_blocks, col_blocks)

    def value_matrix(self, value: int) -> Matrix:
        v = self.values[value]
        if value not in self.matrices:
            self.matrices[value] = self.matrix(v.rows, v.cols, v.name or f"%{value}")
        return self.matrices[value]

    def pair(self, pair: Pair) -> KeyValues:
        if pair not in self.key_values:
            k = self.values[pair[0]]
            heads, key_blocks = padded_blocks(k.cols), padded_blocks(k.rows)
            buffer = Buffer(ACTIVATIONS, 2 * heads * key_blocks, f"{k.name or pair[0]} keys, values")
            self.key_values[pair] = KeyValues(buffer, heads, key_blocks)
        return self.key_values[pair]

    def target(self, value: int, order: BlockOrder, pair: Pair | None) -> Matrix | KeyValues:
        return self.pair(pair) if pair else self.value_matrix(value)

    def weights(self, number_of_blocks: int, filler: WeightFiller | None, name: str) -> Buffer:
        buffer = Buffer(WEIGHTS, number_of_blocks, name)
        self.list.weights.append((buffer, filler))
        return buffer

    def header(self, op_name: str) -> Buffer:
        if self.headers_with_inputs:
            return Buffer(ACTIVATIONS, 1, f"{op_name} header")
        return self.weights(1, None, f"{op_name} header")

    def parameter(self, name: str, rows: int, cols: int) -> Matrix:
        row_blocks, col_blocks = padded_blocks(rows), padded_blocks(cols)
        buffer = self.weights(row_blocks * col_blocks, MatrixFill(name, row_blocks, col_blocks), name)
        return Matrix(buffer, row_blocks, col_blocks)

    def host_input(self, index: int, value: int) -> None:
        for order, pair in self.forms[value]:
            form = {BlockOrder.A: "A", BlockOrder.KEYS: "K", BlockOrder.VALUES: "V"}[order]
            self.list.inputs.append(InputFill(index, form, self.target(value, order, pair)))

    def add_panels(self, step: GemmStep, out: int, filler: PanelFill, name: str, shape: str) -> None:
        """Append the panels of `out` in the order its readers want, if they all want the same."""
        forms = self.forms[out]
        order, pair = forms[0] if len(forms) == 1 else (BlockOrder.A, None)
        target = self.target(out, order, pair)
        count = target.heads if isinstance(target, KeyValues) else target.col_blocks
        filler = PanelFill(**{**vars(filler), "order": order})
        weights = self.weights(count * (step.k_blocks + 1), filler, filler.weight)
        if step.panels:
            step.name = _join_names(step.name, name)
            step.shape = f"{step.shape} + {shape.rpartition(' ')[2]}"
        step.panels.append(Panels(target, order, count, weights))


def _join_names(first: str, second: str) -> str:
    """`a.q_proj`, `a.k_proj` -> `a.q_proj+k_proj`."""
    return f"{first}+{second.rpartition('.')[2]}"
