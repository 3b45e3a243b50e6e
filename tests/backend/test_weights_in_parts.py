"""Weights and biases that are parts of a parameter, however they are taken out of it, are weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, assert_like_eager, compiled, only_report
from torch import Tensor, nn

import torch_xdna

# name -> the three (64, 64) or (64,) parts of a parameter three times as long
PARTS = {
    "split": lambda w: w.split(64),
    "split with sizes": lambda w: w.split([64, 64, 64]),
    "chunk": lambda w: w.chunk(3),
    "tensor_split": lambda w: w.tensor_split(3),
    "unbind": lambda w: w.unflatten(0, (3, 64)).unbind(0),
    "unpacking": lambda w: [*w.unflatten(0, (3, 64))],
    "getitem": lambda w: [w.unflatten(0, (3, 64))[i] for i in range(3)],
    "narrow": lambda w: [w.narrow(0, 64 * i, 64) for i in range(3)],
    "every third": lambda w: [w[i::3] for i in range(3)],
    "split, then split": lambda w: [*w.split([64, 128])[:1], *w.split([64, 128])[1].chunk(2)],
    "stacked again": lambda w: [*torch.stack(w.chunk(3)).flip(0)],
}


@pytest.mark.parametrize("name", PARTS)
def test_parts(name: str) -> None:
    parts = PARTS[name]

    def fn(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return tuple(F.linear(x, wi, bi) for wi, bi in zip(parts(w), parts(b)))

    args = torch.randn(2, 10, 64), torch.randn(192, 64) / 8, torch.randn(192)
    assert_like_eager(fn, *args, regions=1, eager_ops=0)
    assert [type(op).__name__ for op in only_report().region_list[0].ops] == ["Linear"] * 3


@pytest.mark.parametrize("name", ["split", "unbind"])
def test_parts_of_a_bias_added_afterwards(name: str) -> None:
    def fn(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.layer_norm(x @ PARTS[name](w)[1] + PARTS[name](b)[2], (64,), *PARTS[name](b)[:2])

    args = torch.randn(2, 10, 64), torch.randn(192, 64) / 8, torch.randn(192)
    assert_like_eager(fn, *args, regions=1, eager_ops=0)


class MixedProjection(nn.Module):
    """MultiheadAttention over keys of another sequence: its weight is split into q's and k's and v's."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(128, 2, batch_first=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.attention(x, y, y, need_weights=False)[0]


def test_multihead_attention_over_another_sequence() -> None:
    module = MixedProjection().eval()
    report = assert_like_eager(module, torch.randn(2, 10, 128), torch.randn(2, 14, 128))
    assert not any("linear" in r.op or "mm" in r.op for r in report.rows if r.where == "eager"), str(report)
    names = [op.name for region in report.region_list for op in region.ops]
    assert any("in_proj_weight" in name for name in names), names


def test_separate_projections_with_joined_biases() -> None:
    """As WavLM calls it."""
    q, k, v, o = (nn.Linear(128, 128) for _ in range(4))

    def fn(x: Tensor) -> Tensor:
        return F.multi_head_attention_forward(
            x, x, x, 128, 2, torch.empty(0), torch.cat((q.bias, k.bias, v.bias)), None, None, False, 0,
            o.weight, o.bias, False, None, False, None, use_separate_proj_weight=True,
            q_proj_weight=q.weight, k_proj_weight=k.weight, v_proj_weight=v.weight,
        )[0]  # fmt: skip

    report = assert_like_eager(fn, torch.randn(10, 2, 128), eager_ops=0)
    assert sum("mm" in row.op for row in report.rows) == 4


def tiny_siglip() -> tuple[nn.Module, Tensor]:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    return SiglipVisionModel(config).eval(), torch.randn(2, 3, 32, 32)


def tiny_wavlm() -> tuple[nn.Module, Tensor]:
    from transformers import WavLMConfig, WavLMModel

    config = WavLMConfig(
        hidden_size=128, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, conv_dim=[32],
        conv_kernel=[10], conv_stride=[5], num_feat_extract_layers=1, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return WavLMModel(config).eval(), torch.randn(1, 400)


@pytest.mark.parametrize("make", [tiny_siglip, tiny_wavlm], ids=lambda f: f.__name__)
@torch.no_grad()
def test_encoders_of_transformers(make) -> None:
    module, x = make()
    found, expected = compiled(module)(x).last_hidden_state, module(x).last_hidden_state
    assert (found - expected).norm() / expected.norm() < 0.02
    rows = [row for report in torch_xdna.reports() for row in report.rows]
    reasons = [r.reason for r in rows if r.where == "eager" and ("linear" in r.op or "addmm" in r.op)]
    assert reasons == []
    assert any(r.where == "device" for r in rows)


def test_a_changed_part_is_noticed() -> None:
    w, x = torch.randn(192, 64) / 8, torch.randn(3, 64)

    def fn(x: Tensor, w: Tensor) -> Tensor:
        return F.linear(x, w.split(64)[1])

    with torch.no_grad():
        run = compiled(fn)
        assert_close(run(x, w), fn(x, w))
        w[70] += 3
        assert_close(run(x, w), fn(x, w))
