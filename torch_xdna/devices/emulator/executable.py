"""Runs a plan: clip by clip, level by level, the chunks of a level on all cores at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from torch_xdna.devices.base import Stats
from torch_xdna.devices.emulator import native_bf16
from torch_xdna.devices.emulator.chunk import Clip, refuse_unknown, run_chunk
from torch_xdna.devices.emulator.chunk_plan import chunks, make_plan
from torch_xdna.devices.emulator.memory import empty
from torch_xdna.devices.emulator.packing import Packed, pack
from torch_xdna.devices.emulator.workers import run_all
from torch_xdna.devices.emulator.workspace import Workspace
from torch_xdna.lowering.ops import Region

INLINE_FLOPS = 20_000_000  # below this (about 0.2 ms) a clip is done sooner than another thread wakes up
KEPT_WORKSPACES = 2  # for calls from two threads; more may run at once, with memory of their own


class EmulatorExecutable:
    """One region on the CPU. Thread-safe: a run owns its workspace, packed parameters are only read.

    `native`: whether products run in the CPU's own bf16 (native_bf16.py).
    """

    def __init__(self, region: Region) -> None:
        refuse_unknown(region)
        self.native = native_bf16.chosen()
        self.plan = make_plan(region)
        self.stats = Stats()
        self._idle: deque[Workspace] = deque(maxlen=KEPT_WORKSPACES)

    def pack(self, params: Mapping[str, Tensor]) -> Packed:
        return pack(self.plan, params, native=self.native)

    def run(self, inputs: Sequence[Tensor], packed: Packed) -> list[Tensor]:
        """Inputs (batch, rows, cols), any floating dtype and strides; outputs bf16, in memory of their own."""
        region = self.plan.region
        with torch.inference_mode(False), torch.no_grad():
            values = [region.value(v) for v in region.outputs]
            results = [empty((len(inputs[0]), v.rows, v.cols), torch.bfloat16) for v in values]
            clips, outs = list(inputs), results
            if self.plan.folds:
                clips, outs = ([x.reshape(1, -1, x.shape[-1]) for x in xs] for xs in (clips, outs))
            workspace = self._take_workspace()
            for number in range(len(clips[0])):
                mine = ([x[number] for x in clips], [x[number] for x in outs])
                self._run_clip(Clip(region, *mine, packed, workspace))
            self._idle.append(workspace)
        return results

    def _take_workspace(self) -> Workspace:
        try:
            return self._idle.pop()
        except IndexError:
            return Workspace(self.plan, native=self.native)

    def _run_clip(self, clip: Clip) -> None:
        folded = len(clip.inputs[0]) // max(1, clip.region.value(clip.region.inputs[0]).rows)
        inline = self.plan.flops * folded < INLINE_FLOPS
        for stages in self.plan.levels:
            tasks = []
            for stage in stages:
                rows = stage.rows * folded
                bounds = [(0, rows)] if inline else chunks(rows, torch.get_num_threads())
                tasks += [partial(run_chunk, clip, stage, *bound) for bound in bounds]
            if inline:
                for task in tasks:
                    task()
            else:
                run_all(tasks)
