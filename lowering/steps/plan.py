"""Region -> steps: which buffers exist, in which order of blocks, and what runs on the array one after
another.

Choices made here:
- Linear layers over the same input (q, k, v projections) become one product with several sets of panels, so
  that their common left side is announced once and the cores never drain in between.
- A linear layer whose only reader is attention, as keys or values, writes that order directly. Any other
  value in these orders is made by a product without k blocks: the value passes the accumulator as a residual,
  exactly.
- A stride-1 convolution read only by a stride-2 convolution is computed in three planes of rows (2t - 1, 2t,
  2t + 1), so that the second is a plain product over three planes.
- What a convolution over a host input multiplies is gathered on the array (`lowering.host_data.conv_input`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from torch_xdna.lowering import limits, ops
from torch_xdna.lowering.buffers import ACTIVATIONS, WEIGHTS, Buffer, KeyValues, Matrix, Planes
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.host_data.blocks import A_ORDER, K_ORDER, V_ORDER, blocks_of, padded_blocks
from torch_xdna.lowering.host_data.conv_input import PLANES, TILES, ConvInput, conv_input
from torch_xdna.lowering.host_data.fills import (
    InputFill,
    MatrixFill,
    NormFill,
    OutputTake,
    PanelFill,
    ParameterFill,
    WeightFiller,
)
from torch_xdna.lowering.steps.kinds import AttentionStep, GemmStep, Panels, RowStep, Step

TAPS = 3  # rows of a convolution's kernel
Pair = tuple[int, int]  # ids of an attention's keys and values


@dataclass
class StepList:
    """Steps in order, what fills the weights (in order of use), the inputs, and what to read back."""

    steps: list[Step] = field(default_factory=list)
    weights: list[tuple[Buffer, WeightFiller | None]] = field(default_factory=list)  # None: a step's header
    inputs: list[InputFill] = field(default_factory=list)
    outputs: list[OutputTake] = field(default_factory=list)


def plan_steps(region: ops.Region, *, headers_with_inputs: bool = False) -> StepList:
    """The steps of a region; `headers_with_inputs`: see `lowering.lengths`. Raises `LoweringError` (or `LimitError`)
    for what the array can't run."""
    return _Planner(region, headers_with_inputs).run()


class _Planner:
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
        self.forms: dict[int, list[tuple[int, Pair | None]]] = defaultdict(
            list
        )  # (order, pair) wanted of a value
        for op in region.ops:
            for value in op.inputs:
                self.readers[value].append(op)
            self._note_forms(op)
        for value in region.outputs:
            self._want(value, A_ORDER)

    def run(self) -> StepList:
        for index, value in enumerate(self.region.inputs):
            self._host_input(index, value)
        lower: dict[type[ops.Op], Callable] = {
            ops.Linear: self._linear,
            ops.Conv1d: self._conv,
            ops.LayerNorm: self._layer_norm,
            ops.Softmax: self._softmax,
            ops.Gelu: self._gelu,
            ops.Add: self._add,
            ops.Attention: self._attention,
        }
        for op in self.region.ops:
            if type(op) not in lower:
                raise LoweringError(f"{self._who(op)}: the overlay has no such op; leave it on the CPU")
            lower[type(op)](op)
            if op.out not in self.planes:
                self._reorder(op.out)
        for value in self.region.outputs:
            v = self.values[value]
            self.list.outputs.append(OutputTake(self.matrices[value], v.rows, v.cols))
        return self.list

    # What readers want

    def _note_forms(self, op: ops.Op) -> None:
        if isinstance(op, ops.Attention):
            self._want(op.q, A_ORDER)
            self._want(op.k, K_ORDER, (op.k, op.v))
            self._want(op.v, V_ORDER, (op.k, op.v))
        elif isinstance(op, ops.Conv1d):
            if isinstance(op.residual, int):
                self._want(op.residual, A_ORDER)
        else:
            for value in op.inputs:
                self._want(value, A_ORDER)

    def _want(self, value: int, order: int, pair: Pair | None = None) -> None:
        if (order, pair) not in self.forms[value]:
            self.forms[value].append((order, pair))

    def _who(self, op: ops.Op) -> str:
        shapes = " ".join(f"{self.values[i].rows}x{self.values[i].cols}" for i in op.inputs)
        return f"{type(op).__name__.lower()} {op.name} ({shapes})".replace("  ", " ")

    # Buffers

    def _matrix(self, rows: int, cols: int, name: str, arg: int = ACTIVATIONS) -> Matrix:
        row_blocks, col_blocks = padded_blocks(rows), padded_blocks(cols)
        return Matrix(Buffer(arg, row_blocks * col_blocks, name), row_blocks, col_blocks)

    def _value_matrix(self, value: int) -> Matrix:
        v = self.values[value]
        if value not in self.matrices:
            self.matrices[value] = self._matrix(v.rows, v.cols, v.name or f"%{value}")
        return self.matrices[value]

    def _pair(self, pair: Pair) -> KeyValues:
        if pair not in self.key_values:
            k = self.values[pair[0]]
            heads, key_blocks = padded_blocks(k.cols), padded_blocks(k.rows)
            buffer = Buffer(ACTIVATIONS, 2 * heads * key_blocks, f"{k.name or pair[0]} keys, values")
            self.key_values[pair] = KeyValues(buffer, heads, key_blocks)
        return self.key_values[pair]

    def _target(self, value: int, order: int, pair: Pair | None) -> Matrix | KeyValues:
        return self._pair(pair) if pair else self._value_matrix(value)

    def _weights(self, number_of_blocks: int, filler: WeightFiller | None, name: str) -> Buffer:
        buffer = Buffer(WEIGHTS, number_of_blocks, name)
        self.list.weights.append((buffer, filler))
        return buffer

    def _header(self, op_name: str) -> Buffer:
        if self.headers_with_inputs:
            return Buffer(ACTIVATIONS, 1, f"{op_name} header")
        return self._weights(1, None, f"{op_name} header")

    def _parameter(self, name: str, rows: int, cols: int) -> Matrix:
        row_blocks, col_blocks = padded_blocks(rows), padded_blocks(cols)
        buffer = self._weights(row_blocks * col_blocks, MatrixFill(name, row_blocks, col_blocks), name)
        return Matrix(buffer, row_blocks, col_blocks)

    def _host_input(self, index: int, value: int) -> None:
        for order, pair in self.forms[value]:
            form = {A_ORDER: "A", K_ORDER: "K", V_ORDER: "V"}[order]
            self.list.inputs.append(InputFill(index, form, self._target(value, order, pair)))

    # Products

    def _linear(self, op: ops.Linear) -> None:
        x, out = self.values[op.x], self.values[op.out]
        shape = f"{x.rows} x {x.cols} -> {out.cols}"
        step = self.joined.get(op.x) if op.residual is None else None
        if step is None or step is not self.list.steps[-1]:  # joining early would keep results alive for long
            planes = Planes(self.matrices[op.x], blocks_of(x.cols))
            residual = None if op.residual is None else self.matrices[op.residual]
            header = self._header(op.name)
            step = GemmStep(op.name, shape, header, planes, planes.matrix.groups, residual=residual)
            self.list.steps.append(step)
            if op.residual is None:
                self.joined[op.x] = step
        filler = PanelFill(op.weight, op.bias, step.k_blocks, A_ORDER, op.activation, op.transposed)
        self._add_panels(step, op.out, filler, op.name, shape)

    def _add_panels(self, step: GemmStep, out: int, filler: PanelFill, name: str, shape: str) -> None:
        """Append the panels of `out` in the order its readers want, if they all want the same."""
        forms = self.forms[out]
        order, pair = forms[0] if len(forms) == 1 else (A_ORDER, None)
        target = self._target(out, order, pair)
        count = target.heads if isinstance(target, KeyValues) else target.col_blocks
        filler = PanelFill(**{**vars(filler), "order": order})
        weights = self._weights(count * (step.k_blocks + 1), filler, filler.weight)
        if step.panels:
            step.name = _join_names(step.name, name)
            step.shape = f"{step.shape} + {shape.rpartition(' ')[2]}"
        step.panels.append(Panels(target, order, count, weights))

    def _reorder(self, value: int) -> None:
        """Make the K and V orders that `value` is wanted in beside its A order."""
        forms = self.forms[value]
        if len(forms) == 1 and (forms[0][0] == A_ORDER or value not in self.matrices):
            return
        v = self.values[value]
        for order, pair in forms:
            if order == A_ORDER or pair is None:
                continue
            target = self._pair(pair)
            name = f"{v.name or value} as {'keys' if order == K_ORDER else 'values'}"
            header = self._header(name)
            weights = self._weights(target.heads, ParameterFill(order), name)
            panels = [Panels(target, order, target.heads, weights)]
            x = self.matrices[value]
            self.list.steps.append(
                GemmStep(name, f"{v.rows} x {v.cols}", header, None, x.groups, panels, residual=x)
            )

    def _conv(self, op: ops.Conv1d) -> None:
        x, out = self.values[op.x], self.values[op.out]
        outputs, channels, taps = self.shapes[op.weight]
        if taps != TAPS or op.stride not in (1, 2):
            raise LoweringError(
                f"{self._who(op)}: kernel {taps}, stride {op.stride}; only stride 1 or 2 with "
                "kernel 3 is lowered, leave it on the CPU"
            )
        residual = None
        if isinstance(op.residual, str):
            residual = self._parameter(op.residual, out.rows, out.cols)
        elif op.residual is not None:
            residual = self.matrices[op.residual]
        shape = f"{x.rows} x {channels} x {taps} -> {out.rows} x {outputs}"
        second = self._feeds_planes(op)
        if op.x in self.planes:
            planes = self.planes[op.x]
            groups = padded_blocks(out.rows) // limits.CORE_ROWS
            step = GemmStep(op.name, shape, self._header(op.name), planes, groups, residual=residual)
            self.list.steps.append(step)
            conv_channels = limits.BLOCK * planes.k_blocks
            filler = PanelFill(
                op.weight, op.bias, step.k_blocks, A_ORDER, op.activation, conv_channels=conv_channels
            )
            self._add_panels(step, op.out, filler, op.name, shape)
        elif op.x not in self.region.inputs:
            raise LoweringError(
                f"{self._who(op)}: its input is computed on the array, where rows can't be shifted; only the "
                "first convolution of a region and a stride-2 one directly after it are lowered, "
                "leave it on the CPU"
            )
        elif second is None:
            given, gathered = self._gather(op, out.rows, (0,), op.stride)
            step, filler = self._over_frames(op, op.name, given, gathered, 0)
            step.residual = residual
            self._add_panels(step, op.out, filler, op.name, shape)
        else:
            self._conv_in_planes(op, second)

    def _conv_in_planes(self, op: ops.Conv1d, second: ops.Conv1d) -> None:
        """Rows 2t - 1, 2t and 2t + 1 of a convolution, t the rows of the one that follows."""
        out, rows = self.values[op.out], self.values[second.out].rows
        given, gathered = self._gather(op, rows, (-1, 0, 1), 2)
        matrix = self._matrix(TAPS * limits.BLOCK * gathered.row_blocks, out.cols, out.name or op.name)
        per_plane = gathered.row_blocks * matrix.col_blocks
        self.planes[op.out] = Planes(matrix, blocks_of(out.cols), TAPS, per_plane)
        for plane, (which, center) in enumerate(PLANES):
            step, filler = self._over_frames(op, f"{op.name} {which}", given, gathered, center)
            step.valid = (int(center < 0), sum(2 * t + center < out.rows for t in range(rows)))
            weights = self._weights(matrix.col_blocks * (step.k_blocks + 1), filler, op.weight)
            panels = Panels(matrix, A_ORDER, matrix.col_blocks, weights, plane * per_plane)
            step.panels.append(panels)

    def _gather(
        self, op: ops.Conv1d, rows: int, centers: tuple[int, ...], phases: int
    ) -> tuple[ConvInput, Matrix]:
        """The host's frames, and the step that makes the products' left side of them."""
        x, name = self.values[op.x], self.values[op.x].name or str(op.x)
        given = conv_input(x.cols, centers, phases, padded_blocks(rows), f"{name} frames")
        self.list.inputs.append(InputFill(self.region.inputs.index(op.x), "frames", given))
        gathered = self._matrix(rows, limits.BLOCK * len(given.columns), f"{name} gathered")
        label = f"{op.name} input"
        header = self._header(label)
        weights = self._weights(gathered.col_blocks, ParameterFill(A_ORDER), label)
        panels = [Panels(gathered, A_ORDER, gathered.col_blocks, weights)]
        shape = f"{x.rows} x {x.cols} -> {rows} x {limits.BLOCK * len(given.columns)}"
        step = GemmStep(label, shape, header, None, gathered.groups, panels, residual=given)
        self.list.steps.append(step)
        return given, gathered

    def _over_frames(
        self, op: ops.Conv1d, name: str, given: ConvInput, gathered: Matrix, center: int
    ) -> tuple[GemmStep, PanelFill]:
        """A product (without its panels yet) over the frames around `phases * t + center`."""
        x, out = self.values[op.x], self.values[op.out]
        first, slots = given.window(center)
        k_blocks = len(slots) // TILES
        rows = (out.rows - center + given.phases - 1) // given.phases
        shape = f"{rows} x {TAPS * x.cols} -> {out.cols}"
        planes = Planes(gathered, k_blocks, first=first)
        step = GemmStep(name, shape, self._header(name), planes, gathered.groups)
        self.list.steps.append(step)
        return step, PanelFill(op.weight, op.bias, k_blocks, A_ORDER, op.activation, slots=slots)

    def _feeds_planes(self, op: ops.Conv1d) -> ops.Conv1d | None:
        """The stride-2 convolution that is the only reader of this stride-1 one, if there is one."""
        readers = self.readers[op.out]
        if op.stride != 1 or op.residual is not None or len(readers) != 1 or op.out in self.region.outputs:
            return None
        reader = readers[0]
        fits = isinstance(reader, ops.Conv1d) and reader.stride == 2 and reader.x == op.out
        return (
            reader
            if fits and isinstance(reader, ops.Conv1d) and self.shapes[reader.weight][2] == TAPS
            else None
        )

    # Row ops and attention

    def _row_step(self, kind: str, op: ops.Op, eps: float = 0.0, y: Matrix | None = None) -> None:
        out = self.values[op.out]
        x, target = self.matrices[op.inputs[0]], self._value_matrix(op.out)
        header = self._header(op.name or kind)
        shape = f"{out.rows} x {out.cols}"
        self.list.steps.append(RowStep(op.name or kind, shape, header, kind, x, target, out.cols, y, eps))

    def _layer_norm(self, op: ops.LayerNorm) -> None:
        width = self.values[op.out].cols
        limits.NORM_WIDTH.check(width, f"the width of {self._who(op)}")
        self._row_step("layer_norm", op, op.eps)
        vectors = self._weights(2, NormFill(op.gamma, op.beta, width), op.name)  # directly after the header
        if self.headers_with_inputs:
            step = self.list.steps[-1]
            assert isinstance(step, RowStep)
            step.vectors = vectors

    def _softmax(self, op: ops.Softmax) -> None:
        limits.SOFTMAX_WIDTH.check(self.values[op.out].cols, f"the width of {self._who(op)}")
        self._row_step("softmax", op)

    def _gelu(self, op: ops.Gelu) -> None:
        self._row_step("gelu", op)

    def _add(self, op: ops.Add) -> None:
        out = self.values[op.out]
        y = self._parameter(op.y, out.rows, out.cols) if isinstance(op.y, str) else self.matrices[op.y]
        self._row_step("add", op, y=y)

    def _attention(self, op: ops.Attention) -> None:
        q, k = self.values[op.q], self.values[op.k]
        if q.cols != ops.HEAD_SIZE * op.heads or k.cols != q.cols:
            raise LoweringError(
                f"{self._who(op)}: {op.heads} heads of {q.cols / op.heads:g}; only heads of "
                f"{ops.HEAD_SIZE} are lowered, leave it on the CPU"
            )
        out = self._value_matrix(op.out)
        if out.col_blocks != op.heads and any(
            self._reads_padding(reader, op.out) for reader in self.readers[op.out]
        ):
            self._zero_last_columns(out, op.name)
        header = self._header(op.name)
        shape = f"{op.heads} heads, {q.rows} x {k.rows}"
        pair = self._pair((op.k, op.v))
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
        header = self._header(f"{name} padding")
        weights = self._weights(limits.CORE_ROWS, ParameterFill(A_ORDER), f"{name} padding")
        first = matrix.col_blocks - limits.CORE_ROWS
        panels = [Panels(matrix, A_ORDER, limits.CORE_ROWS, weights, first)]
        shape = f"{limits.BLOCK * matrix.row_blocks} x {limits.BLOCK * limits.CORE_ROWS}"
        self.list.steps.append(GemmStep(f"{name} padding", shape, header, None, matrix.groups, panels))


def _join_names(first: str, second: str) -> str:
    """`a.q_proj`, `a.k_proj` -> `a.q_proj+k_proj`."""
    return f"{first}+{second.rpartition('.')[2]}"
