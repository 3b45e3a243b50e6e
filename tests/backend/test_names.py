"""Names in reports of what Dynamo breaks: where it goes on in the middle, the module's or function's name stays.
(They were named torch_dynamo_resume_in_forward_at_42.)"""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from comparing import compiled
from torch import Tensor, nn

import torch_xdna


class BrokenEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        a = self.fc1(x)
        torch._dynamo.graph_break()
        b = F.gelu(self.fc2(a))  # `self` is a variable of the rest
        torch._dynamo.graph_break()
        return F.gelu(b)  # and here no more


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = BrokenEncoder()

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.encoder(x), -1)


def half_and_half(x: Tensor) -> Tensor:
    a = F.gelu(x)
    torch._dynamo.graph_break()
    return F.softmax(a, -1)


CASES = {
    "encoder": (BrokenEncoder, {"encoder"}),
    "outer": (Outer, {"Outer", "encoder", "BrokenEncoder"}),
    "function": (lambda: half_and_half, {"half_and_half"}),
}


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="a code object does not know its class before Python 3.11"
)
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_names_after_a_graph_break(case: str) -> None:
    make, names = CASES[case]
    fn, x = make(), torch.randn(2, 5, 64)
    report = torch_xdna.explain(fn, x)
    assert len(report.graphs) >= 2
    assert {g.name for g in report.graphs} <= names
    assert "resume" not in str(report) and "resume" not in report.to_json()
    assert {region.name.partition(".")[0] for region in report.region_list} <= names

    compiled(fn)(x)
    found = torch_xdna.reports()
    assert len(found) >= 2 and {r.name for r in found} <= names
