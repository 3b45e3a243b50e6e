"""A clamp that keeps fp16 from overflowing: left out on the device, whose bf16 has room, kept for what leaves it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, compiled, only_report
from torch import Tensor

BOUND = torch.finfo(torch.float16).max - 1000  # as Hugging Face's encoders have it


def clamped(x: Tensor, w: Tensor) -> Tensor:
    return F.linear(x, w).clamp(min=-BOUND, max=BOUND)


LEAVING = {
    "the clamp": clamped,
    "a view of it": lambda x, w: clamped(x, w).t(),
    "a copy of a view": lambda x, w: clamped(x, w).t().contiguous(),
    "cast": lambda x, w: clamped(x, w).float(),
    "after gelu": lambda x, w: F.gelu(clamped(x, w)),
    "before and after": lambda x, w: (F.linear(x, w).float() / 4, clamped(x, w)),
    "two clamps": lambda x, w: clamped(x, w).clamp(-6e4, 6e4),
    "a sum": lambda x, w: clamped(x, w) + x[:, :6],
    "a sum of sums": lambda x, w: x[:, :6] + (x[:, :6] + F.gelu(clamped(x, w))),
    "copied into a tensor": lambda x, w: torch.empty(x.shape[0], 6, dtype=x.dtype).copy_(clamped(x, w)),
}


@pytest.mark.parametrize("scale", [1, 0.455, 0.01, -1])
@pytest.mark.parametrize("name", LEAVING)
@torch.no_grad()
def test_what_leaves_is_finite_and_within_the_bounds(name: str, scale: float) -> None:
    """144,000 in each element, 65,500 (finite in fp16 and above the bound), and 1,440."""
    fn = LEAVING[name]
    x, w = torch.full((4, 8), 300.0).half(), torch.full((6, 8), 60.0 * scale).half()
    expected = fn(x, w)
    if name == "before and after" and scale in (1, -1):
        expected = torch.full_like(expected[0], 36e3 * scale), expected[1]  # eager: infinite before the clamp
    assert_close(compiled(fn)(x, w), expected)
    report = only_report()
    assert report.regions and not any("clamp" in row.op and row.where == "eager" for row in report.rows)


@torch.no_grad()
def test_in_between_there_is_room() -> None:
    """Nothing that the clamp is there for happens: what is normalised may be larger than fp16's numbers."""

    def fn(x: Tensor, w: Tensor) -> Tensor:
        return F.layer_norm(clamped(x, w), (6,))

    x, w = torch.rand(4, 8) * 300, torch.rand(6, 8) * 60
    found = compiled(fn)(x.half(), w.half())
    exact = F.layer_norm(F.linear(x, w), (6,))
    assert (found - exact).abs().max() < 0.05
