"""Convolutions over the host's frames, and over the planes of rows of one before them.

- A stride-1 convolution read only by a stride-2 convolution is computed in three planes of rows (2t - 1, 2t,
  2t + 1), so that the second is a plain product over three planes.
- What a convolution over a host input multiplies is gathered on the array (`lowering.host_data.conv_input`).
"""

from __future__ import annotations

from torch_xdna.kernels_xdna1.contract import BlockOrder
from torch_xdna.lowering import limits, ops
from torch_xdna.lowering.buffers import Matrix, Planes
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.host_data.blocks import blocks_of, padded_blocks
from torch_xdna.lowering.host_data.conv_input import PLANES, TILES, ConvInput, conv_input
from torch_xdna.lowering.host_data.fills import InputFill, PanelFill, ParameterFill
from torch_xdna.lowering.steps.builder import StepBuilder
from torch_xdna.lowering.steps.kinds import GemmStep, Panels

TAPS = 3  # rows of a convolution's kernel


def convolution(b: StepBuilder, op: ops.Conv1d) -> None:
    x, out = b.values[op.x], b.values[op.out]
    outputs, channels, taps = b.shapes[op.weight]
    if taps != TAPS or op.stride not in (1, 2):
        raise LoweringError(
            f"{b.who(op)}: kernel {taps}, stride {op.stride}; only stride 1 or 2 with "
            "kernel 3 is lowered, leave it on the CPU"
        )
    residual = None
    if isinstance(op.residual, str):
        residual = b.parameter(op.residual, out.rows, out.cols)
    elif op.residual is not None:
        residual = b.matrices[op.residual]
    shape = f"{x.rows} x {channels} x {taps} -> {out.rows} x {outputs}"
    second = _feeds_planes(b, op)
    if op.x in b.planes:
        planes = b.planes[op.x]
        groups = padded_blocks(out.rows) // limits.CORE_ROWS
        step = GemmStep(op.name, shape, b.header(op.name), planes, groups, residual=residual)
        b.list.steps.append(step)
        conv_channels = limits.BLOCK * planes.k_blocks
        filler = PanelFill(
            op.weight, op.bias, step.k_blocks, BlockOrder.A, op.activation, conv_channels=conv_channels
        )
        b.add_panels(step, op.out, filler, op.name, shape)
    elif op.x not in b.region.inputs:
        raise LoweringError(
            f"{b.who(op)}: its input is computed on the array, where rows can't be shifted; only the "
            "first convolution of a region and a stride-2 one directly after it are lowered, "
            "leave it on the CPU"
        )
    elif second is None:
        given, gathered = _gather(b, op, out.rows, (0,), op.stride)
        step, filler = _over_frames(b, op, op.name, given, gathered, 0)
        step.residual = residual
        b.add_panels(step, op.out, filler, op.name, shape)
    else:
        _conv_in_planes(b, op, second)


def _conv_in_planes(b: StepBuilder, op: ops.Conv1d, second: ops.Conv1d) -> None:
    """Rows 2t - 1, 2t and 2t + 1 of a convolution, t the rows of the one that follows."""
    out, rows = b.values[op.out], b.values[second.out].rows
    given, gathered = _gather(b, op, rows, (-1, 0, 1), 2)
    matrix = b.matrix(TAPS * limits.BLOCK * gathered.row_blocks, out.cols, out.name or op.name)
    per_plane = gathered.row_blocks * matrix.col_blocks
    b.planes[op.out] = Planes(matrix, blocks_of(out.cols), TAPS, per_plane)
    for plane, (which, center) in enumerate(PLANES):
        step, filler = _over_frames(b, op, f"{op.name} {which}", given, gathered, center)
        step.valid = (int(center < 0), sum(2 * t + center < out.rows for t in range(rows)))
        weights = b.weights(matrix.col_blocks * (step.k_blocks + 1), filler, op.weight)
        panels = Panels(matrix, BlockOrder.A, matrix.col_blocks, weights, plane * per_plane)
        step.panels.append(panels)


def _gather(
    b: StepBuilder, op: ops.Conv1d, rows: int, centers: tuple[int, ...], phases: int
) -> tuple[ConvInput, Matrix]:
    """The host's frames, and the step that makes the products' left side of them."""
    x, name = b.values[op.x], b.values[op.x].name or str(op.x)
    given = conv_input(x.cols, centers, phases, padded_blocks(rows), f"{name} frames")
    b.list.inputs.append(InputFill(b.region.inputs.index(op.x), "frames", given))
    gathered = b.matrix(rows, limits.BLOCK * len(given.columns), f"{name} gathered")
    label = f"{op.name} input"
    header = b.header(label)
    weights = b.weights(gathered.col_blocks, ParameterFill(BlockOrder.A), label)
    panels = [Panels(gathered, BlockOrder.A, gathered.col_blocks, weights)]
    shape = f"{x.rows} x {x.cols} -> {rows} x {limits.BLOCK * len(given.columns)}"
    step = GemmStep.gather(label, shape, header, panels, given, gathered.groups)
    b.list.steps.append(step)
    return given, gathered


def _over_frames(
    b: StepBuilder, op: ops.Conv1d, name: str, given: ConvInput, gathered: Matrix, center: int
) -> tuple[GemmStep, PanelFill]:
    """A product (without its panels yet) over the frames around `phases * t + center`."""
    x, out = b.values[op.x], b.values[op.out]
    first, slots = given.window(center)
    k_blocks = len(slots) // TILES
    rows = (out.rows - center + given.phases - 1) // given.phases
    shape = f"{rows} x {TAPS * x.cols} -> {out.cols}"
    planes = Planes(gathered, k_blocks, first=first)
    step = GemmStep(name, shape, b.header(name), planes, gathered.groups)
    b.list.steps.append(step)
    return step, PanelFill(op.weight, op.bias, k_blocks, BlockOrder.A, op.activation, slots=slots)


def _feeds_planes(b: StepBuilder, op: ops.Conv1d) -> ops.Conv1d | None:
    """The stride-2 convolution that is the only reader of this stride-1 one, if there is one."""
    readers = b.readers[op.out]
    if op.stride != 1 or op.residual is not None or len(readers) != 1 or op.out in b.region.outputs:
        return None
    reader = readers[0]
    fits = isinstance(reader, ops.Conv1d) and reader.stride == 2 and reader.x == op.out
    return reader if fits and isinstance(reader, ops.Conv1d) and b.shapes[reader.weight][2] == TAPS else None
