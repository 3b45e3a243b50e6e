"""The coverage table: that its rows are what explaining those models gives today, and that shares are shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import torch_xdna
from torch_xdna.report import DEVICE

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_flops_are_counted_by_hand() -> None:
    """A linear layer 2 m n k, a convolution the same over its taps, attention two products."""

    class Some(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(16, 64, 3, padding=1)
            self.fc = nn.Linear(64, 128)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.fc(self.conv(x).mT)
            q = x.unflatten(-1, (2, 64)).transpose(1, 2)
            return nn.functional.scaled_dot_product_attention(q, q, q) @ q.mT

    report = torch_xdna.explain(Some().eval(), torch.randn(3, 16, 20))
    conv, fc = 2 * 3 * 20 * 64 * 16 * 3, 2 * 3 * 20 * 64 * 128
    attention, product = 2 * 2 * 3 * 20 * 20 * 128, 2 * 3 * 20 * 20 * 128
    assert sum(row.flops for row in report.rows) == conv + fc + attention + product
    assert sum(row.flops for row in report.rows if row.where == DEVICE) == conv + fc + attention
    assert 0.8 < report.flops_share < 1
    assert f"{100 * report.flops_share:.1f} % of the arithmetic" in str(report)


@pytest.mark.parametrize("name", ["DistilBERT", "ViT base"])
def test_the_table_says_what_explaining_gives(name: str) -> None:
    """Two rows, made anew in the published sizes."""
    import coverage
    from coverage_models import MODELS

    lines = (BENCHMARKS / "results" / "coverage.md").read_text().splitlines()
    rows = {cells[1].strip(): cells for line in lines if len(cells := line.split("|")) > 6}
    assert rows.keys() >= {m.name for m in MODELS}, "run benchmarks/coverage.py again"
    found = coverage.cover(next(m for m in MODELS if m.name == name), errors=False)
    assert [c.strip() for c in rows[name][2:4]] == [f"{100 * found.share:.1f} %", str(found.regions)]


def test_errors_are_at_most_eager_bf16s() -> None:
    import coverage
    from coverage_models import MODELS

    ours, bf16 = coverage.small_errors(next(m for m in MODELS if m.name == "DistilBERT"))
    assert 1e-4 < ours < 1.2 * bf16
