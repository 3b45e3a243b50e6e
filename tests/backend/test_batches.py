"""Batch sizes come and go with at most two compiles, and share one executable and one copy of the weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, compiled
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import torch_xdna


class Block(nn.Module):
    """What an encoder has: convolution, position embedding, norm, attention, feed-forward."""

    def __init__(self, attention: str = "sdpa") -> None:
        super().__init__()
        self.attention = attention
        self.conv = nn.Conv1d(8, 128, 3, stride=2, padding=1)
        self.positions = nn.Embedding(10, 128)
        self.norm = nn.LayerNorm(128)
        self.qkv = nn.ModuleList(nn.Linear(128, 128, bias=i != 1) for i in range(3))
        self.out = nn.Linear(128, 128)
        self.up, self.down = nn.Linear(128, 256), nn.Linear(256, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.conv(x)).permute(0, 2, 1) + self.positions(torch.arange(10))
        q, k, v = (p(self.norm(x)).view(*x.shape[:2], -1, 64).transpose(1, 2) for p in self.qkv)
        if self.attention == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(torch.matmul(q, k.transpose(2, 3)) * 0.125, -1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm(x))))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_batches(attention, context):
    model = Block(attention).eval()
    counter = CompileCounterWithBackend("xdna")
    fn = torch.compile(model, backend=counter)
    with context():
        for batch in (1, 4, 2, 8, 1, 3):
            x = torch.randn(batch, 8, 20)
            assert_close(fn(x), model(x))
    assert counter.frame_count <= 2
    (report,) = torch_xdna.reports()
    assert (report.regions, report.eager_ops, report.compiles) == (1, 0, counter.frame_count)


def test_weights_are_packed_once_for_all_batches():
    model = Block().eval()
    fn = compiled(model)
    with torch.no_grad():
        for batch in (1, 4, 2):
            fn(torch.randn(batch, 8, 20))
    (report,) = torch_xdna.reports()
    assert report.compiles == 2
    (executable,) = {id(e): e for g in report.graphs for e in g.executables}.values()
    assert executable is report.graphs[1].executables[0]


def test_dynamic_from_the_start():
    model = Block().eval()
    fn = torch.compile(model, backend="xdna", dynamic=True, options={"device": "emulator"})
    with torch.no_grad():
        for batch in (3, 5):
            x = torch.randn(batch, 8, 20)
            assert_close(fn(x), model(x))


def test_batch_in_the_first_of_two_dimensions():
    """A pooled tensor (batch, features): its rows are the batch."""
    linear = nn.Linear(16, 8)
    fn = compiled(linear)
    with torch.no_grad():
        for batch in (1, 4, 2):
            x = torch.randn(batch, 16)
            assert_close(fn(x), linear(x))
    assert sum(r.eager_ops for r in torch_xdna.reports()) == 0
