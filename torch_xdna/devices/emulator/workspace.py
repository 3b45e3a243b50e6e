"""Memory that a run needs, kept from call to call: fresh pages cost as much as the arithmetic that fills them.

(Measured: a product of 1500 x 512 x 2048 takes 0.66 to 0.8 times as long into memory that was used before.)
"""

from __future__ import annotations

import math
import queue
from collections.abc import Hashable

import torch
from torch import Tensor

from torch_xdna.devices.emulator.chunk_plan import HALO, ChunkPlan, Store
from torch_xdna.devices.emulator.memory import empty, zeros


class Scratch:
    """Named memory of one chunk, grown to the largest size that was asked for."""

    def __init__(self) -> None:
        self._memory: dict[Hashable, Tensor] = {}

    def matrix(self, name: Hashable, rows: int, cols: int, pad: int = 0, dtype=torch.float32) -> Tensor:
        """An uninitialised (rows, cols) matrix whose rows are `cols + pad` apart."""
        size = rows * (cols + pad)
        memory = self._memory.get(name)
        if memory is None or memory.numel() < size:
            memory = self._memory[name] = empty((size,), dtype)
        return memory[:size].view(rows, cols + pad)[:, :cols]

    def dense(self, name: Hashable, *shape: int) -> Tensor:
        """An uninitialised dense fp32 tensor."""
        return self.matrix(name, 1, math.prod(shape)).view(shape)


class Workspace:
    """One run's stores and as many scratches as chunks are under way. Not shared by runs at the same time.

    `native`: keys and values in bf16, for the CPU's own bf16 product.
    """

    def __init__(self, plan: ChunkPlan, *, native: bool = False) -> None:
        self.native = native
        self._stores: dict[Store, Tensor] = {}
        self.by_row = {v: self._tensor(store) for v, store in plan.by_row.items()}
        self.by_head = {v: self._tensor(store) for v, store in plan.by_head.items()}
        self._scratches: queue.SimpleQueue[Scratch] = queue.SimpleQueue()

    def borrow(self) -> Scratch:
        try:
            return self._scratches.get_nowait()
        except queue.Empty:
            return Scratch()

    def give_back(self, scratch: Scratch) -> None:
        self._scratches.put(scratch)

    def _tensor(self, store: Store) -> Tensor:
        if store not in self._stores:
            if store.heads:
                memory = empty(
                    (store.heads, store.rows, store.cols // store.heads),
                    torch.bfloat16 if self.native else torch.float32,
                )
            else:
                memory = zeros((store.rows + 2 * HALO, store.cols), torch.bfloat16)
            self._stores[store] = memory
        return self._stores[store]
