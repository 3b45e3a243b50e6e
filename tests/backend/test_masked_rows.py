"""Rows that are masked out whole: eager's safe softmax gives zeros there, whichever way attention is taken apart."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, compiled, only_report
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [(8, 64), (3, 8, 64), (2, 3, 8, 64), (1, 2, 3, 8, 64), (8, 8, 64), (8, 8, 8, 64)]


def masks() -> dict[str, Tensor]:
    keep = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) < 0.7
    keep[3] = keep[5] = False
    return {"bool": keep, "float": torch.zeros(8, 8).masked_fill(~keep, -math.inf)}


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def by_the_math_backend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return sdpa(q, k, v, mask)


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("how", [sdpa, by_the_math_backend], ids=lambda f: f.__name__)
@torch.no_grad()
def test_attention(how, shape: tuple[int, ...], mask: str) -> None:
    q, k, v = (torch.randn(shape) for _ in range(3))
    expected = how(q, k, v, masks()[mask])
    assert torch.isfinite(expected).all()
    assert_close(compiled(how)(q, k, v, masks()[mask]), expected)


class Masked(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return sdpa(q, k, v, mask)


@pytest.mark.parametrize("mask", masks())
@torch.no_grad()
def test_a_decomposed_export(mask: str) -> None:
    args = *(torch.randn(2, 3, 8, 64) for _ in range(3)), masks()[mask]
    module = torch.export.export(Masked(), args).run_decompositions().module()
    assert_close(compiled(lambda *a: module(*a))(*args), module(*args))


def decomposed_safe_softmax(x: Tensor) -> Tensor:
    dead = (x == -math.inf).logical_not().any(-1, keepdim=True).logical_not()
    return torch.where(dead, torch.zeros(()), torch.softmax(x, -1))


@pytest.mark.parametrize(
    "fn", [lambda x: torch.ops.aten._safe_softmax(x, -1), decomposed_safe_softmax], ids=["op", "decomposed"]
)
@torch.no_grad()
def test_a_safe_softmax_alone(fn) -> None:
    x = torch.randn(8, 8, 8) + masks()["float"]
    assert_close(compiled(fn)(x), fn(x))
    reasons = {row.reason for row in only_report().rows}
    assert any("gives zeros for rows that are masked out whole" in reason for reason in reasons), reasons


@torch.no_grad()
def test_a_safe_softmax_over_the_rows_mask() -> None:
    """The rows that count as masked out are those of another dimension: as large, with equal sizes."""

    def fn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.mT
        dead = (scores == -math.inf).logical_not().any(0, keepdim=True).logical_not()
        return torch.where(dead, torch.zeros(()), torch.softmax(scores, -1)) @ v

    q, k, v = (torch.randn(64, 64, 64) * 0.3 for _ in range(3))
    assert_close(compiled(fn)(q, k, v), fn(q, k, v))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@torch.no_grad()
def test_what_is_not_finite_stays_where_it_is(bad: float) -> None:
    """What is meant: a row of queries that is not finite gives NaN, as by softmax's definition, and spoils no
    other row. (Eager's fused kernel gives zeros or NaN there, its written-out form NaN.)
    """
    q, k, v = (torch.randn(2, 3, 8, 64) for _ in range(3))
    good = sdpa(q, k, v, torch.zeros(8, 8))
    q[0, 1, 2] = bad
    found = compiled(F.scaled_dot_product_attention)(q, k, v)
    row = torch.zeros(2, 3, 8, dtype=torch.bool)
    row[0, 1, 2] = True
    assert found[row].isnan().all()
    assert_close(found[~row], good[~row])
