"""Runs a plan: clip by clip, level by level, the chunks of a level on all cores at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lowering import ops as ir
from torch_xdna.devices.base import Stats
from torch_xdna.devices.emulator import numerics
from torch_xdna.devices.emulator.packing import LANES, Packed, pack
from torch_xdna.devices.emulator.plan import HALO, Load, Product, Stage, Step, chunks, make_plan
from torch_xdna.devices.emulator.workers import run_all
from torch_xdna.devices.emulator.workspace import Scratch, Workspace
from torch_xdna.profile.ranges import device_range

INLINE_FLOPS = 20_000_000  # below this (about 0.2 ms) a clip is done sooner than another thread wakes up
KEPT_WORKSPACES = 2  # for calls from two threads; more run at once too, with memory of their own


class EmulatorExecutable:
    """One region on the CPU. Thread-safe: a run owns its workspace, packed parameters are only read."""

    def __init__(self, region: ir.Region) -> None:
        self.plan = make_plan(region)
        self.stats = Stats()
        self._idle: deque[Workspace] = deque(maxlen=KEPT_WORKSPACES)

    def pack(self, params: Mapping[str, Tensor]) -> Packed:
        return pack(self.plan, params)

    def run(self, inputs: Sequence[Tensor], packed: Packed) -> list[Tensor]:
        """Inputs (batch, rows, cols) of any floating dtype and strides; outputs bf16, in memory of their own."""
        region = self.plan.region
        batch = inputs[0].shape[0]
        with torch.inference_mode(False), torch.no_grad():
            shapes = [(batch, region.value(v).rows, region.value(v).cols) for v in region.outputs]
            results = [torch.empty(shape, dtype=torch.bfloat16) for shape in shapes]
            clips, outs = list(inputs), results
            if self.plan.folds:
                clips = [x.reshape(1, -1, x.shape[-1]) for x in inputs]
                outs = [y.view(1, -1, y.shape[-1]) for y in results]
            try:
                workspace = self._idle.pop()
            except IndexError:
                workspace = Workspace(self.plan)
            for number in range(clips[0].shape[0]):
                self._run_clip(
                    _Clip(self.plan.region, [x[number] for x in clips], outs, number, packed, workspace)
                )
            self._idle.append(workspace)
        return results

    def _run_clip(self, clip: _Clip) -> None:
        scale = clip.inputs[0].shape[0] // max(1, self.plan.region.value(self.plan.region.inputs[0]).rows)
        inline = self.plan.flops * scale < INLINE_FLOPS
        for stages in self.plan.levels:
            tasks = []
            for stage in stages:
                rows = stage.rows * scale
                parts = [(0, rows)] if inline else chunks(rows, torch.get_num_threads())
                tasks += [partial(clip.run_chunk, stage, first, last) for first, last in parts]
            if inline:
                for task in tasks:
                    task()
            else:
                run_all(tasks)


@dataclass(frozen=True)
class _Clip:
    """What the chunks of one clip share."""

    region: ir.Region
    inputs: list[Tensor]
    outs: list[Tensor]
    number: int
    packed: Packed
    workspace: Workspace

    def run_chunk(self, stage: Stage, first: int, last: int) -> None:
        scratch = self.workspace.borrow()
        chunk = _Chunk(self, scratch, first, last)
        for step in stage.steps:
            with device_range(_name(step)):
                chunk.take(step)
        self.workspace.give_back(scratch)


class _Chunk:
    """Rows first..last-1 on their way through a stage; `values` are the ones that were made on the way, bf16."""

    def __init__(self, clip: _Clip, scratch: Scratch, first: int, last: int) -> None:
        self.clip, self.scratch, self.first, self.last = clip, scratch, first, last
        self.values: dict[int, Tensor] = {}

    def take(self, step: Step) -> None:
        if isinstance(step, Product):
            self._product(step)
        elif isinstance(step, ir.Conv1d):
            self._conv1d(step)
        elif isinstance(step, ir.Attention):
            self._attention(step)
        elif isinstance(step, Load):
            self._keep(step.out, self.clip.inputs[step.index][self.first : self.last])
        elif isinstance(step, ir.LayerNorm):
            gamma, beta = self.clip.packed.norms[step.out]
            self._keep(step.out, numerics.layer_norm(self._rows(step.x), gamma, beta, step.eps))
        elif isinstance(step, ir.Add):
            other = self._position(step.out) if isinstance(step.y, str) else self._rows(step.y)
            self._keep(step.out, self._rows(step.x) + other)
        elif isinstance(step, ir.Softmax):
            self._keep(step.out, numerics.softmax(self._rows(step.x)))
        else:
            self._keep(step.out, numerics.gelu(self._rows(step.x)))

    def _product(self, step: Product) -> None:
        head = step.parts[0]
        x = self._rows(head.x)
        operand = self._operand(x.shape[1])
        operand[:, :-1].copy_(x)
        residual = None if head.residual is None else self._rows(head.residual)
        result = self._multiply(operand, self.clip.packed.matrices[step.key], head.gelu, residual)
        start = 0
        for part in step.parts:
            cols = self.clip.region.value(part.out).cols
            self._keep(part.out, result[:, start : start + cols])
            start += cols

    def _conv1d(self, step: ir.Conv1d) -> None:
        padded, stride = self.clip.workspace.rows[step.x], step.stride
        channels = padded.shape[1]
        operand = self._operand(3 * channels)
        for tap in range(3):  # output row t reads input rows stride t - 1 + tap; the halo shifts them by one
            start = self.first * stride + tap + HALO - 1
            stop = (self.last - 1) * stride + tap + HALO
            operand[:, tap * channels : (tap + 1) * channels].copy_(padded[start:stop:stride])
        residual = None
        if step.residual is not None:
            residual = (
                self._position(step.out) if isinstance(step.residual, str) else self._rows(step.residual)
            )
        self._keep(
            step.out, self._multiply(operand, self.clip.packed.matrices[step.out], step.gelu, residual)
        )

    def _operand(self, cols: int) -> Tensor:
        """A product's left operand, all but the column of ones for the bias still to be written."""
        width = cols + 1
        operand = self.scratch.matrix("operand", self.last - self.first, width, -width % LANES)
        operand[:, cols].fill_(1.0)
        return operand

    def _multiply(self, x: Tensor, weight: Tensor, gelu: bool, residual: Tensor | None) -> Tensor:
        out = self.scratch.matrix("result", x.shape[0], weight.shape[0])
        if residual is not None and not gelu:
            return out.copy_(residual).addmm_(x, weight.t())
        torch.mm(x, weight.t(), out=out)
        if gelu:
            torch._C._nn.gelu_(out)
            if residual is not None:
                out.add_(residual.float())
        return out

    def _attention(self, step: ir.Attention) -> None:
        k, v = (self.clip.workspace.heads[i] for i in (step.k, step.v))
        rows, scratch = self.last - self.first, self.scratch
        q = scratch.flat("queries", step.heads, rows, ir.HEAD_SIZE)
        q.copy_(_by_head(self._rows(step.q), step.heads)).mul_(step.scale)
        out = scratch.matrix("result", rows, step.heads * ir.HEAD_SIZE)
        numerics.attention(
            q,
            k,
            v,
            out,
            scratch.flat("scores", max(16 * k.shape[1], min(rows * k.shape[1], numerics.SCORES))),
            scratch.flat("sums", rows),
            scratch.flat("part", rows * ir.HEAD_SIZE),
            numerics.score_bounds(q, k),
        )
        self._keep(step.out, out)

    def _rows(self, v: int) -> Tensor:
        """This chunk's rows of a value, bf16."""
        if v not in self.values:
            self.values[v] = self.clip.workspace.rows[v][HALO + self.first : HALO + self.last]
        return self.values[v]

    def _position(self, key: int) -> Tensor:
        return self.clip.packed.positions[key][self.first : self.last]

    def _keep(self, v: int, result: Tensor) -> None:
        """Round a result to bf16 (it may be already) and put it wherever somebody will look for it."""
        workspace = self.clip.workspace
        store = workspace.rows.get(v)
        if store is not None:
            self.values[v] = store[HALO + self.first : HALO + self.last].copy_(result)
        else:
            self.values[v] = numerics.bf16(result)
        heads = workspace.heads.get(v)
        if heads is not None:
            heads[:, self.first : self.last].copy_(_by_head(self.values[v], heads.shape[0]))
        for out, id in zip(self.clip.outs, self.clip.region.outputs, strict=True):
            if id == v:
                out[self.clip.number, self.first : self.last].copy_(self.values[v])


def _name(step: Step) -> str:
    """As lowering calls it: `layers.0.self_attn.q_proj+k_proj+v_proj` for a product of several linear ops."""
    if isinstance(step, Load):
        return f"input {step.index}"
    if isinstance(step, Product):
        return "+".join([step.parts[0].name, *(part.name.rpartition(".")[2] for part in step.parts[1:])])
    return step.name


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(rows, 64 heads) as (heads, rows, 64), without copying."""
    return x.unflatten(1, (heads, -1)).transpose(0, 1)
