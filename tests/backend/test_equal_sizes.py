"""Equal sizes on purpose: with batch == rows == columns == heads no size tells which dimension is which, so what
decides must be how each dimension came about. (Found by random programs: wrong numbers without a word.)
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, compiled, only_report
from torch import Tensor

N = 64  # clips, heads, rows, columns and head size


def rand(*shape: int) -> Tensor:
    return torch.randn(shape)


def probabilities(q: Tensor, k: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT * 0.5, -1)


# name -> (function of q, k, v; whether it is attention after all)
ATTENTIONS = {
    "as it is": (lambda q, k, v: probabilities(q, k) @ v, True),
    "probabilities transposed": (lambda q, k, v: probabilities(q, k).mT @ v, False),
    "scores transposed": (lambda q, k, v: torch.softmax((q @ k.mT * 0.5).mT, -1) @ v, False),
    "scores transposed, and back": (lambda q, k, v: torch.softmax((q @ k.mT * 0.5).mT, -1).mT @ v, False),
    "twice transposed": (lambda q, k, v: torch.softmax((q @ k.mT * 0.5).mT.mT, -1).mT.mT @ v, True),
    "probabilities by permute": (lambda q, k, v: probabilities(q, k).permute(1, 2, 0) @ v, False),
    "leading dimension and rows swapped": (lambda q, k, v: probabilities(q, k).transpose(0, 1) @ v, False),
    "scores regrouped": (lambda q, k, v: torch.softmax((q @ k.mT).flatten(0, 1).view(q.shape), -1) @ v, True),
    "rounded to integers": (lambda q, k, v: torch.softmax((q @ k.mT).int().float(), -1) @ v, False),
    "keys stored as columns": (lambda q, k, v: torch.softmax(q @ k * 0.5, -1) @ v, True),
    "q transposed": (lambda q, k, v: torch.softmax(q.mT @ k.mT * 0.5, -1) @ v, True),
    "q by leading dimension": (lambda q, k, v: torch.softmax(q.transpose(0, 1) @ k.mT * 0.5, -1) @ v, True),
    "safe over the other dimension": (
        lambda q, k, v: torch.where(((q @ k.mT) == -math.inf).logical_not().any(-2, True).logical_not(),
                                    torch.zeros(()), torch.softmax(q @ k.mT, -1)) @ v, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTIONS)
@torch.no_grad()
def test_attention_written_out(name: str) -> None:
    fn, on_device = ATTENTIONS[name]
    q, k, v = (rand(N, N, N) * 0.3 for _ in range(3))
    assert_close(compiled(fn)(q, k, v), fn(q, k, v))
    kinds = [type(op).__name__ for region in only_report().region_list for op in region.ops]
    assert ("Attention" in kinds) == on_device, kinds


def heads_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


# What happens to the leading dimensions (4, 4) of the probabilities before they multiply the values.
LEADING = {
    "as they are": (lambda p: p, True),
    "swapped": (heads_first, False),
    "swapped and copied": (lambda p: heads_first(p).contiguous(), False),
    "swapped twice": (lambda p: heads_first(heads_first(p)), True),
    "flat": (lambda p: p.flatten(0, 1).unflatten(0, (4, 4)), True),
    "flat, the other way": (lambda p: heads_first(p).flatten(0, 1).unflatten(0, (4, 4)), False),
    "regrouped (2, 2, 4)": (lambda p: p.reshape(2, 2, 4, N, N).transpose(0, 1).reshape(4, 4, N, N), False),
}


@pytest.mark.parametrize("name", LEADING)
@torch.no_grad()
def test_leading_dimensions(name: str) -> None:
    reorder, on_device = LEADING[name]

    def fn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return reorder(probabilities(q, k)) @ v

    q, k, v = (rand(4, 4, N, N) * 0.3 for _ in range(3))
    assert_close(compiled(fn)(q, k, v), fn(q, k, v))
    kinds = [type(op).__name__ for region in only_report().region_list for op in region.ops]
    assert ("Attention" in kinds) == on_device, kinds


# name -> (what becomes of a weight (4, 4) or (4, 6) before bmm, whether one weight serves all clips)
SHARED = {
    "expand": (lambda w: w.expand(4, *w.shape), True),
    "unsqueeze(0)": (lambda w: w.unsqueeze(0).expand(4, *w.shape), True),
    "transposed": (lambda w: w.t().contiguous().t().expand(4, *w.shape), True),
    "along the rows": (lambda w: w.unsqueeze(1).expand(4, 4, w.shape[-1]), False),
    "along the rows, copied": (lambda w: w.unsqueeze(1).expand(4, 4, w.shape[-1]).contiguous(), False),
    "then permuted": (lambda w: w.expand(4, *w.shape).transpose(0, 1), False),
    "repeated by regrouping": (lambda w: w.unsqueeze(1).expand(4, 4, w.shape[-1]).reshape(4, 4, -1), False),
    "one row for all": (lambda w: w[:1].expand(4, 4, -1), False),
}


@pytest.mark.parametrize("columns", [4, 6])
@pytest.mark.parametrize("name", SHARED)
@torch.no_grad()
def test_a_weight_for_all_clips(name: str, columns: int) -> None:
    repeat, on_device = SHARED[name]

    def fn(x: Tensor, w: Tensor) -> Tensor:
        return torch.bmm(x, repeat(w))

    x, w = rand(4, 4, 4), rand(4, columns)
    assert_close(compiled(fn)(x, w), fn(x, w))
    assert only_report().regions == on_device


# Sums in which every dimension has the same size, and where the second operand lies differently in each.
SUMS = {
    "bias": (lambda x, w, b: F.linear(x, w) + b),
    "a number for each row": (lambda x, w, b: F.linear(x, w) + b[:, None]),
    "a number for each clip": (lambda x, w, b: F.linear(x, w) + b[:, None, None]),
    "on the transposed": (lambda x, w, b: F.linear(x, w).mT + b),
    "rows of the transposed": (lambda x, w, b: F.linear(x, w).mT + b[:, None]),
    "matrix": (lambda x, w, b: F.linear(x, w) + w),
    "matrix on the transposed": (lambda x, w, b: F.linear(x, w).mT + w),
    "transposed matrix": (lambda x, w, b: F.gelu(x) + w.t()),
    "clips first": (lambda x, w, b: F.linear(x, w).transpose(0, 1) + w),
    "behind a last dimension of one": (lambda x, w, b: F.linear(x, w).mT[:, :, :, None] + b[:, None]),
    "linear, then one": (lambda x, w, b: F.gelu(x[..., None]) + b[:, None]),
    "one in between": (lambda x, w, b: F.gelu(x[:, :, None]) + b),
    "residual": (lambda x, w, b: x + F.linear(x, w)),
    "residual of the transposed": (lambda x, w, b: x.mT + F.linear(x, w)),
    "residual of the transposed product": (lambda x, w, b: F.linear(x, w).mT + F.linear(x.mT, w)),
    "residual by clips": (lambda x, w, b: x.transpose(0, 1) + F.linear(x, w)),
    "residual by permute": (lambda x, w, b: F.linear(x, w).permute(2, 0, 1) + x),
    "norm of the transposed": (lambda x, w, b: F.layer_norm(F.linear(x, w).mT, (8,), b, b)),
    "softmax of the transposed": (lambda x, w, b: torch.softmax(F.linear(x, w).transpose(0, 2), -1)),
    "conv1d": (lambda x, w, b: F.conv1d(F.linear(x, w), w[:, :, None].expand(-1, -1, 3), b, padding=1)),
    "conv1d of the transposed": (
        lambda x, w, b: F.conv1d(F.linear(x, w).mT, w[:, :, None].expand(-1, -1, 3), b, padding=1)
    ),
    "addmm of a column": (lambda x, w, b: torch.addmm(b[:, None], x[0], w)),
    "linear with a column as bias": (lambda x, w, b: F.linear(x[0], w, b[:, None].expand(-1, 8))),
}


@pytest.mark.parametrize("name", SUMS)
@torch.no_grad()
def test_sums_and_norms(name: str) -> None:
    fn = SUMS[name]
    args = rand(8, 8, 8), rand(8, 8), rand(8)
    assert_close(compiled(fn)(*args), fn(*args))
