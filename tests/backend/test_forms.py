"""Every form of every matched op runs on the device, in one region, and equals eager."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_like_eager, only_report

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def rand(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype)


LINEARS = {
    "3d with bias": (F.linear, (2, 10, 64), (32, 64), (32,)),
    "3d without bias": (F.linear, (2, 10, 64), (32, 64)),
    "2d": (F.linear, (10, 64), (32, 64), (32,)),
    "1d": (F.linear, (64,), (32, 64), (32,)),
    "4d": (F.linear, (2, 3, 5, 64), (32, 64), (32,)),
    "odd sizes": (F.linear, (3, 7, 33), (5, 33), (5,)),
    "one clip": (F.linear, (1, 10, 64), (32, 64), (32,)),
    "one row": (F.linear, (4, 1, 64), (32, 64), (32,)),
    "one column": (F.linear, (4, 6, 64), (1, 64), (1,)),
    "addmm": (torch.addmm, (32,), (10, 64), (64, 32)),
    "addmm of a row": (torch.addmm, (1, 32), (10, 64), (64, 32)),
    "mm": (torch.mm, (10, 64), (64, 32)),
    "matmul 3d": (torch.matmul, (2, 10, 64), (64, 32)),
    "transposed weight": (lambda x, w, b: F.linear(x, w.t(), b), (2, 10, 64), (64, 32), (32,)),
    "weight times rows": (lambda x, w: x @ w.t(), (10, 64), (32, 64)),
    "slice of a weight": (lambda x, w: F.linear(x, w[:32]), (2, 10, 64), (96, 64)),
    "weights joined": (lambda x, v, w: F.linear(x, torch.cat([v, w])), (2, 10, 64), (8, 64), (24, 64)),
    "bias afterwards": (lambda x, w, b: x @ w + b, (2, 10, 64), (64, 32), (32,)),
    "bmm of one weight": (lambda x, w: torch.bmm(x, w.expand(3, -1, -1)), (3, 10, 64), (64, 32)),
}


@pytest.mark.parametrize("form", LINEARS)
def test_linear(form):
    fn, *shapes = LINEARS[form]
    assert_like_eager(fn, *(rand(*shape) for shape in shapes), regions=1, eager_ops=0)
    assert [type(op).__name__ for op in only_report().region_list[0].ops] == ["Linear"]


NOT_CONTIGUOUS = {
    "x transposed": lambda: (rand(10, 2, 64).transpose(0, 1), rand(32, 64), rand(32)),
    "x strided": lambda: (rand(2, 10, 128)[..., ::2], rand(32, 64), rand(32)),
    "weight transposed": lambda: (rand(2, 10, 64), rand(64, 32).t(), rand(32)),
    "weight strided": lambda: (rand(2, 10, 64), rand(32, 128)[:, ::2], rand(32)),
    "bias strided": lambda: (rand(2, 10, 64), rand(32, 64), rand(64)[::2]),
}


@pytest.mark.parametrize("form", NOT_CONTIGUOUS)
def test_linear_of_tensors_that_are_not_contiguous(form):
    assert_like_eager(F.linear, *NOT_CONTIGUOUS[form](), regions=1, eager_ops=0)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("form", ["3d with bias", "mm", "bias afterwards"])
def test_linear_in_half_precision(form, dtype):
    fn, *shapes = LINEARS[form]
    assert_like_eager(fn, *(rand(*shape, dtype=dtype) for shape in shapes), regions=1, eager_ops=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(dtype, affine):
    params = (rand(96, dtype=dtype), rand(96, dtype=dtype)) if affine else (None, None)
    x = rand(2, 10, 96, dtype=dtype) * 3 + 1
    assert_like_eager(lambda x, g, b: F.layer_norm(x, (96,), g, b, 1e-5), x, *params, regions=1, eager_ops=0)


@pytest.mark.parametrize("shape", [(5, 96), (96,), (2, 3, 5, 96), (1, 1, 96)], ids=str)
def test_layer_norm_shapes(shape):
    assert_like_eager(lambda x: F.layer_norm(x, (96,)), rand(*shape), regions=1, eager_ops=0)


def decomposed_safe_softmax(x):
    dead = (x == float("-inf")).logical_not().any(-1, keepdim=True).logical_not()
    return torch.where(dead, torch.zeros(()), torch.softmax(x, -1))


def exp_over_sum(x):
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def exp_over_sum_with_max(x):
    e = torch.exp(x - x.max(-1, keepdim=True).values)
    return e / e.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: torch.softmax(x, -1),
        lambda x: F.softmax(x, dim=x.ndim - 1),
        exp_over_sum,
        exp_over_sum_with_max,
    ],
    ids=["softmax", "positive dim", "exp over sum", "exp over sum, max"],
)
def test_softmax(fn):
    assert_like_eager(fn, rand(2, 4, 20, 30) * 3, regions=1, eager_ops=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gelu_and_softmax_dtypes(dtype):
    assert_like_eager(
        lambda x: torch.softmax(F.gelu(x), -1), rand(2, 10, 40, dtype=dtype), regions=1, eager_ops=0
    )


@pytest.mark.parametrize("shape", [(7,), (5, 96), (2, 3, 5, 7)], ids=str)
def test_gelu_shapes(shape):
    assert_like_eager(F.gelu, rand(*shape), regions=1, eager_ops=0)


@pytest.mark.parametrize("shape", [(9,), (5, 96), (2, 5, 96), (2, 3, 5, 7)], ids=str)
def test_residual_add(shape):
    assert_like_eager(torch.add, rand(*shape), rand(*shape), regions=1, eager_ops=0)


def test_add_of_operands_in_different_arrangements():
    x, y = rand(2, 5, 7).transpose(1, 2), rand(2, 7, 5)
    assert_like_eager(lambda x, y: F.gelu(x) + y, x, y, regions=1, eager_ops=0)


def test_position_embedding_is_a_weight():
    embedding = torch.nn.Embedding(10, 32)

    def fn(x):
        return F.gelu(x) + embedding(torch.arange(10))

    assert_like_eager(fn, rand(2, 10, 32), regions=1, eager_ops=0)


def written_out(q, k, v):
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1) @ v


def scaled_on_both_sides(q, k, v):
    s = math.sqrt(0.125)
    return torch.softmax((q * s) @ (k * s).transpose(-2, -1), -1) @ v


def safe(q, k, v):
    return decomposed_safe_softmax((q * 0.125) @ k.transpose(-2, -1)) @ v


def softmax_in_fp32(q, k, v):
    return torch.softmax(q @ k.transpose(-2, -1) * 0.125, -1, dtype=torch.float32).to(q.dtype) @ v


ATTENTIONS = {
    "sdpa": F.scaled_dot_product_attention,
    "sdpa, scale": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
    "sdpa, scaled q": lambda q, k, v: F.scaled_dot_product_attention(q * 0.125, k, v, scale=1.0),
    "written out": written_out,
    "scaled on both sides": scaled_on_both_sides,
    "safe": safe,
    "softmax in fp32": softmax_in_fp32,
}


@pytest.mark.parametrize("shape", [(2, 3, 20, 64), (1, 2, 20, 64), (6, 20, 64), (20, 64)], ids=str)
@pytest.mark.parametrize("form", ATTENTIONS)
def test_attention(form, shape):
    q, k, v = (rand(*shape) for _ in range(3))
    assert_like_eager(ATTENTIONS[form], q, k, v, regions=1, eager_ops=0)
    assert [type(op).__name__ for op in only_report().region_list[0].ops] == ["Attention"]


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("form", ["sdpa", "written out", "softmax in fp32"])
def test_attention_in_half_precision(form, dtype):
    q, k, v = (rand(2, 3, 20, 64, dtype=dtype) for _ in range(3))
    assert_like_eager(ATTENTIONS[form], q, k, v, regions=1, eager_ops=0)


@pytest.mark.parametrize("form", ["sdpa", "written out"])
def test_cross_attention(form):
    assert_like_eager(
        ATTENTIONS[form], rand(2, 3, 20, 64), rand(2, 3, 33, 64), rand(2, 3, 33, 64), regions=1, eager_ops=0
    )


@pytest.mark.parametrize("form", ["sdpa", "written out"])
def test_heads_are_columns_so_nothing_moves(form):
    """Projections, attention and output projection: one region, four ops' worth of values, no copies."""
    weights = [rand(128, 128) / 12 for _ in range(4)]

    def fn(x, wq, wk, wv, wo):
        q, k, v = (F.linear(x, w).view(*x.shape[:2], 2, 64).transpose(1, 2) for w in (wq, wk, wv))
        return F.linear(ATTENTIONS[form](q, k, v).transpose(1, 2).reshape(x.shape), wo)

    assert_like_eager(fn, rand(2, 20, 128), *weights, regions=1, eager_ops=0)
    kinds = [type(op).__name__ for op in only_report().region_list[0].ops]
    assert kinds == ["Linear", "Linear", "Linear", "Attention", "Linear"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_conv1d(stride, dtype):
    def fn(x, w, b):
        return F.conv1d(x, w, b, stride=stride, padding=1)

    args = rand(2, 20, 31, dtype=dtype), rand(24, 20, 3, dtype=dtype) / 8, rand(24, dtype=dtype)
    assert_like_eager(fn, *args, regions=1, eager_ops=0)


def test_conv1d_without_batch_and_bias():
    assert_like_eager(
        lambda x, w: F.conv1d(x, w, padding=1), rand(20, 31), rand(24, 20, 3), regions=1, eager_ops=0
    )


def test_whispers_front_end_is_two_ops():
    w1, w2, embedding = rand(32, 20, 3) / 8, rand(32, 32, 3) / 10, torch.nn.Parameter(rand(15, 32))

    def fn(x):
        x = F.gelu(F.conv1d(F.gelu(F.conv1d(x, w1, padding=1)), w2, stride=2, padding=1))
        return x.permute(0, 2, 1) + embedding

    assert_like_eager(fn, rand(2, 20, 30), regions=1, eager_ops=0)
    assert [type(op).__name__ for op in only_report().region_list[0].ops] == ["Conv1d", "Conv1d"]
