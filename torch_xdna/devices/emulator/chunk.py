"""One chunk of rows on its way through a stage: products over the whole chunk, the rest piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_xdna.devices.emulator import native_bf16, numerics
from torch_xdna.devices.emulator.chunk_plan import HALO, Load, MatrixOp, Product, RowStep, Stage, pieces
from torch_xdna.devices.emulator.native_bf16 import Bf16Matrix
from torch_xdna.devices.emulator.packing import LANES, Packed
from torch_xdna.devices.emulator.workspace import Scratch, Workspace
from torch_xdna.devices.profiler_range import device_range
from torch_xdna.lowering import ops as ir
from torch_xdna.lowering.errors import LoweringError

# Elements of a piece's widest matrix (4 MB as fp32): bounds a chunk's temporaries. Pieces that fit a core's L2
# cache were expected to be faster and are not: every kernel call costs more than the cache misses that it saves.
# CPU time of 2 layers of base relative to eager's, one core, minimum of 12 runs in turns: 64 K elements 1.16, 2 M
# 1.10; in another run 256 K 1.23, 1 M 0.98, 2 M 0.99.
PIECE = 1024 * 1024


@dataclass(frozen=True)
class Clip:
    """What the chunks of one clip share: `inputs` and `outs` are its (rows, cols) in the user's tensors."""

    region: ir.Region
    inputs: list[Tensor]
    outs: list[Tensor]
    packed: Packed
    workspace: Workspace


def run_chunk(clip: Clip, stage: Stage, first: int, last: int) -> None:
    """Take rows first..last-1 of a clip through a stage."""
    scratch = clip.workspace.borrow()
    _Chunk(clip, stage, scratch, first, last).run()
    clip.workspace.give_back(scratch)


class _Chunk:
    """`values`: what the present piece has made, and what it has looked up, all bf16 (rows of the piece, cols)."""

    def __init__(self, clip: Clip, stage: Stage, scratch: Scratch, first: int, last: int) -> None:
        self.clip, self.stage, self.scratch, self.first = clip, stage, scratch, first
        self.rows = last - first
        self.values: dict[int, Tensor] = {}
        self.start = self.stop = 0  # the present piece, in rows of the chunk

    def run(self) -> None:
        phases = self.stage.phases
        for phase, following in zip(phases, [*(p.matrix for p in phases[1:]), None], strict=True):
            result = None
            if phase.matrix is not None:
                with device_range(_name(phase.matrix)):
                    result = self._multiply(phase.matrix)
            if not phase.steps and following is None and phase.matrix is None:
                continue
            operand = None if following is None else self._operand(following)
            for piece in pieces(self.rows, self._piece_rows(result, operand)):
                self.start, self.stop = piece
                self.values.clear()
                if phase.matrix is not None and result is not None:
                    with device_range(_name(phase.matrix)):
                        self._finish(phase.matrix, result[self.start : self.stop])
                for step in phase.steps:
                    with device_range(_name(step)):
                        self._row_step(step)
                if following is not None and operand is not None:
                    self._fill(following, operand)

    def _piece_rows(self, *matrices: Tensor | None) -> int:
        widest = max((m.numel() // max(self.rows, 1) for m in matrices if m is not None), default=512)
        return max(8, PIECE // max(widest, 1))

    # Before a product: its operand.

    def _operand(self, step: MatrixOp) -> Tensor:
        """Memory for a matrix step's left operand: (rows, k + 1) with ones for the bias, or (heads, rows, 64); for
        the CPU's own bf16 product (rows, columns of the packed weight), or (rows, 64 heads)."""
        if isinstance(step, ir.Attention):
            if self.clip.workspace.native:
                return self._bf16_memory(step.heads * ir.HEAD_SIZE)
            return self.scratch.dense("operand", step.heads, self.rows, ir.HEAD_SIZE)
        matrix = self.clip.packed.matrices[step.out]
        if isinstance(matrix, Bf16Matrix):
            return native_bf16.operand(matrix, self._bf16_memory(matrix.weight.shape[1]))
        cols = matrix.shape[1]
        operand = self.scratch.matrix("operand", self.rows, cols, -cols % LANES)
        operand[:, -1].fill_(1.0)
        return operand

    def _bf16_memory(self, cols: int) -> Tensor:
        return self.scratch.matrix("bf16 operand", self.rows, cols, dtype=torch.bfloat16)

    def _fill(self, step: MatrixOp, operand: Tensor) -> None:
        if isinstance(step, ir.Attention):
            if self.clip.workspace.native:
                operand[self.start : self.stop].copy_(self._rows(step.q))
                return
            mine = operand[:, self.start : self.stop]
            mine.copy_(_by_head(self._rows(step.q)))
            mine.mul_(step.scale)
            return
        matrix = self.clip.packed.matrices[step.out]
        k = matrix.k if isinstance(matrix, Bf16Matrix) else matrix.shape[1] - 1
        mine = operand[self.start : self.stop, :k]
        if isinstance(step, ir.Conv1d):
            self._fill_taps(step, mine)
        else:
            mine.copy_(self._rows(step.parts[0].x))

    def _fill_taps(self, step: ir.Conv1d, operand: Tensor) -> None:
        """Output row t reads input rows stride t - 1 + tap, tap 0, 1, 2; the halo shifts them by one."""
        padded = self.clip.workspace.by_row[step.x]
        channels = padded.shape[1]
        first, last = self.first + self.start, self.first + self.stop
        for tap in range(3):
            begin = first * step.stride + tap + HALO - 1
            end = (last - 1) * step.stride + tap + HALO
            operand[:, tap * channels : (tap + 1) * channels].copy_(padded[begin : end : step.stride])

    # The product, over all rows of the chunk.

    def _multiply(self, step: MatrixOp) -> Tensor:
        """The fp32 result of a product with its bias, or of an attention; in bf16 and finished (GELU, residual) where
        the CPU's own bf16 product made it."""
        operand = self._operand(step)
        if isinstance(step, ir.Attention):
            return self._attention(step, operand)
        weight = self.clip.packed.matrices[step.out]
        if isinstance(weight, Bf16Matrix):
            self.start, self.stop = 0, self.rows
            self.values.clear()
            head = step.parts[0] if isinstance(step, Product) else step
            return native_bf16.product(
                operand, weight, activation=head.activation, residual=self._residual(step, head.residual)
            )
        return torch.mm(operand, weight.t(), out=self.scratch.matrix("result", self.rows, weight.shape[0]))

    def _attention(self, step: ir.Attention, q: Tensor) -> Tensor:
        k, v = (self.clip.workspace.by_head[i] for i in (step.k, step.v))
        if self.clip.workspace.native:
            return native_bf16.attention(q, k, v, step.scale)
        out = self.scratch.matrix("result", self.rows, step.heads * ir.HEAD_SIZE)
        most = max(numerics.SCORES, 16 * k.shape[1], 64 * self.rows)
        scores, sums = self.scratch.dense("scores", most), self.scratch.dense("sums", 2, self.rows, 1)
        numerics.attention(q, k, v, out, scores, sums)
        return out

    # After it, piece by piece.

    def _finish(self, step: MatrixOp, result: Tensor) -> None:
        """Activation and residual, where they are still to come, and rounding."""
        if isinstance(step, ir.Attention):
            return self._keep(step.out, result)
        head = step.parts[0] if isinstance(step, Product) else step
        if result.dtype == torch.float32:
            if head.activation:
                numerics.ACTIVATE[head.activation](result)
            residual = self._residual(step, head.residual)
            if residual is not None:
                result.add_(residual.float())
        start = 0
        for part in step.parts if isinstance(step, Product) else (step,):
            stop = start + self.clip.region.value(part.out).cols
            self._keep(part.out, result[:, start:stop])
            start = stop

    def _residual(self, step: Product | ir.Conv1d, residual: int | str | None) -> Tensor | None:
        """The piece's rows of what is added to a product, bf16."""
        if residual is None:
            return None
        return self._position(step.out) if isinstance(residual, str) else self._rows(residual)

    def _row_step(self, step: RowStep) -> None:
        self._keep(step.out, ROW_STEPS[type(step)](self, step))

    def _load(self, step: Load) -> Tensor:
        return self.clip.inputs[step.index][self.first + self.start : self.first + self.stop]

    def _layer_norm(self, step: ir.LayerNorm) -> Tensor:
        gamma, beta = self.clip.packed.norms[step.out]
        return numerics.layer_norm(self._rows(step.x), gamma, beta, step.eps)

    def _add(self, step: ir.Add) -> Tensor:
        other = self._position(step.out) if isinstance(step.y, str) else self._rows(step.y)
        return self._rows(step.x) + other

    # Where values are.

    def _rows(self, v: int) -> Tensor:
        """The piece's rows of a value, bf16."""
        if v not in self.values:
            self.values[v] = self._place(v)
        return self.values[v]

    def _place(self, v: int) -> Tensor:
        """The piece's rows in the memory of a value that outlives the piece."""
        store = self.clip.workspace.by_row.get(v)
        if store is not None:
            return store[HALO + self.first + self.start : HALO + self.first + self.stop]
        cols = self.clip.region.value(v).cols
        return self.scratch.matrix(v, self.rows, cols, dtype=torch.bfloat16)[self.start : self.stop]

    def _position(self, key: int) -> Tensor:
        return self.clip.packed.positions[key][self.first + self.start : self.first + self.stop]

    def _keep(self, v: int, result: Tensor) -> None:
        """Round a result to bf16 (it may be already) and put it wherever somebody will look for it."""
        if v in self.stage.local or v in self.clip.workspace.by_row:
            self.values[v] = self._place(v).copy_(result)
        else:
            self.values[v] = result.to(torch.bfloat16)
        first, last = self.first + self.start, self.first + self.stop
        heads = self.clip.workspace.by_head.get(v)
        if heads is not None:
            heads[:, first:last].copy_(_by_head(self.values[v]))
        for out, id in zip(self.clip.outs, self.clip.region.outputs, strict=True):
            if id == v:
                out[first:last].copy_(self.values[v])


def on_rows(function: Callable[[Tensor], Tensor]) -> Callable[[_Chunk, Any], Tensor]:
    """The row step of an op with one input `x` and no parameters: `function` of its rows (bf16), rounded later."""
    return lambda chunk, step: function(chunk._rows(step.x))


# What runs piece by piece: kind of step -> its result for the present piece, any float dtype. `_keep` rounds it.
ROW_STEPS: dict[type, Callable[[_Chunk, Any], Tensor]] = {
    Load: _Chunk._load,
    ir.LayerNorm: _Chunk._layer_norm,
    ir.Add: _Chunk._add,
    ir.Softmax: on_rows(numerics.softmax),
    ir.Gelu: on_rows(numerics.gelu),
}
PRODUCTS = (ir.Linear, ir.Conv1d, ir.Attention)


def refuse_unknown(region: ir.Region) -> None:
    """Raise LoweringError for an op that has neither a product nor a row step here."""
    for op in region.ops:
        if type(op) not in ROW_STEPS and not isinstance(op, PRODUCTS):
            raise LoweringError(
                f"{type(op).__name__.lower()} {op.name}: the emulator has no such op; leave it on the CPU"
            )


def _name(step: MatrixOp | RowStep) -> str:
    """For profilers, as lowering calls it: `layers.0.self_attn.q_proj+k_proj+v_proj` for joined linear ops."""
    if isinstance(step, Load):
        return f"input {step.index}"
    if isinstance(step, Product):
        return "+".join([step.parts[0].name, *(part.name.rpartition(".")[2] for part in step.parts[1:])])
    return step.name


def _by_head(x: Tensor) -> Tensor:
    """(rows, 64 heads) as (heads, rows, 64), without copying."""
    return x.unflatten(1, (-1, ir.HEAD_SIZE)).transpose(0, 1)
