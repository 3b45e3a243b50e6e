"""A region's text holds all of it: what is printed can be read again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from expected import Builder
from hypothesis import given
from hypothesis import strategies as st

import torch_xdna
from torch_xdna.lowering import lower, ops
from torch_xdna.lowering.ops import Region
from torch_xdna.lowering.whisper import MODELS, encoder_region


def same(region: Region) -> Region:
    """With parameters in a fixed order, which means nothing."""
    return replace(region, params=tuple(sorted(region.params, key=lambda p: p.name)))


@pytest.mark.parametrize("size", ["tiny", "large-v3"])
def test_whisper(size: str) -> None:
    region = encoder_region(MODELS[size], 100)
    back = Region.parse(str(region))
    assert same(back) == same(region) and str(back) == str(region)


def test_it_lowers_to_the_same_words() -> None:
    region = encoder_region(replace(MODELS["tiny"], layers=1), 50)
    assert (lower(Region.parse(str(region))).words == lower(region).words).all()


def test_a_captured_region() -> None:
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = torch.nn.LayerNorm(128, eps=3e-7), torch.nn.Linear(128, 256, bias=False)
            self.added = torch.nn.Parameter(torch.zeros(70, 256))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(torch.nn.functional.gelu(self.linear(self.norm(x))) + self.added, -1)

    with torch.no_grad():
        (region,) = torch_xdna.capture_regions(Small().eval(), torch.randn(1, 70, 128))
    assert same(Region.parse(str(region))) == same(region)
    assert "activation=gelu" in str(region) and "y=added[70x256]" in str(region)


@given(st.data())
def test_any_region(data: st.DataObject) -> None:
    b = Builder()
    x = b.input(data.draw(st.integers(1, 300)), 128)
    for i in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["linear", "gelu", "softmax", "norm"]))
        if kind == "linear":
            options = {"bias": data.draw(st.booleans()), "gelu": data.draw(st.booleans())}
            x = b.linear(x, 128, f"l{i}", **options, transposed=data.draw(st.booleans()))
        elif kind == "norm":
            x = b.norm(x, f"n{i}")
        else:
            x = b.op(ops.Gelu if kind == "gelu" else ops.Softmax, f"o{i}", x)
    region = b.region(x)
    assert same(Region.parse(str(region))) == same(region)


def test_what_is_no_region_is_refused() -> None:
    with pytest.raises(ValueError, match="no line of a region: hello"):
        Region.parse("region x\n  hello\n  return %0")
    with pytest.raises(ValueError, match="no op of a region"):
        Region.parse("region x\n  input %0[1x1]\n  %1[1x1] = Relu(x=%0)\n  return %1")
