"""Higher-order ops (control flow, flex_attention) run eager with what they call; what is around them stays on the
device. (Each of these ended in AttributeError: their graphs are children of the compiled graph, as regions are.)"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_like_eager, compiled, only_report
from torch import Tensor
from torch._higher_order_ops import map as torch_map
from torch._higher_order_ops import while_loop
from torch.nn.attention.flex_attention import flex_attention

import torch_xdna


def _cond(x: Tensor, w: Tensor) -> Tensor:
    y = F.linear(x, w)
    return F.gelu(torch.cond(x.sum() > 0, lambda y: F.linear(y, w), lambda y: y + 1, (y,)))


def _while(x: Tensor, w: Tensor) -> Tensor:
    _, y = while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, F.linear(y, w)), (torch.tensor(0), x))
    return F.linear(y, w)


def _map(x: Tensor, w: Tensor) -> Tensor:
    return F.linear(torch_map(lambda clip: F.gelu(clip) + 1, x), w)


def _flex(x: Tensor, w: Tensor) -> Tensor:
    q = F.linear(x, w).unflatten(-1, (2, 64)).transpose(1, 2)
    return F.linear(flex_attention(q, q, q).transpose(1, 2).flatten(2), w)


CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cond": _cond,
    "while_loop": _while,
    "map_impl": _map,
    "flex_attention": _flex,
}


@pytest.mark.parametrize("name", CASES)
def test_it_runs_eager_and_the_rest_on_the_device(name: str) -> None:
    x, w = torch.randn(2, 16, 128), torch.randn(128, 128) * 128**-0.5
    report = assert_like_eager(CASES[name], x, w)
    assert report.regions >= 1
    (row,) = [r for r in report.rows if r.op == name]
    assert row.where == "eager" and ("higher-order" in row.reason or "sdpa" in row.reason)
    assert [r.where for r in torch_xdna.explain(CASES[name], x, w).rows] == [r.where for r in report.rows]


def test_random_numbers_of_a_branch_stay_in_order() -> None:
    def noisy(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        a = torch.rand_like(x)
        y = F.linear(x, w)
        b = torch.cond(y.sum() > -1e9, lambda y: y + torch.rand_like(y), lambda y: y.clone(), (y,))
        return a, b - y, torch.rand_like(x)

    x, w = torch.randn(2, 16, 128), torch.randn(128, 128) * 128**-0.5
    with torch.no_grad():
        torch.manual_seed(3)
        expected = noisy(x, w)
        torch.manual_seed(3)
        found = compiled(noisy)(x, w)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 0.05
    assert only_report().regions == 1


def test_whisper_with_flex_attention() -> None:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=128, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=128, max_source_positions=20
    )
    config._attn_implementation = "sdpa"  # eager's own flex_attention compiles C++ for a minute
    encoder = WhisperEncoder(config).eval()
    mel = torch.randn(1, 80, 40)
    with torch.no_grad():
        expected = encoder(mel).last_hidden_state
        config._attn_implementation = "flex_attention"
        found = torch.compile(encoder, backend="xdna", options={"device": "emulator"})(mel).last_hidden_state
    assert (found - expected).abs().max() / expected.abs().max() < 0.02
    assert any("attn_implementation='sdpa'" in row.reason for row in only_report().rows)
