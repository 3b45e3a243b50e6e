"""A small module that is one region, its inputs, and how tests compile it for the NPU."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.up, self.down = nn.LayerNorm(128), nn.Linear(128, 256), nn.Linear(256, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def compiled(model: nn.Module, **options: object) -> nn.Module:
    return torch.compile(model, backend="xdna", options={"device": "npu", **options})


def clips(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 70, 128, generator=torch.Generator().manual_seed(seed))
