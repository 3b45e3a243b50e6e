"""Inf and NaN: NaN where eager has NaN, rows that do not see them unharmed, and nothing crashes."""

import numpy as np
import pytest
import torch
from core_driver import rounded

SPECIAL = [np.nan, -np.nan, np.inf, -np.inf]


@pytest.fixture
def x():
    return rounded(np.random.default_rng(2).standard_normal((64, 128)))


def nan_rows(y):
    return np.isnan(y).any(1)


@pytest.mark.parametrize("value", SPECIAL)
def test_gemm(core, x, value):
    x[5, 77] = value
    w = rounded(np.random.default_rng(3).standard_normal((64, 128)))
    eager = x.astype(np.float64) @ w.T.astype(np.float64)
    got = core.gemm(x, w)
    assert np.array_equal(np.isnan(got), np.isnan(eager))
    assert np.array_equal(np.isinf(got), np.isinf(eager))


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_row_operations(core, x, value, kind):
    x[5, 77] = x[20, 0] = x[63, 127] = value
    t = torch.tensor(x.astype(np.float64))
    eager = {
        0: lambda: torch.nn.functional.layer_norm(t, (128,)),
        1: lambda: torch.softmax(t, 1),
        2: lambda: torch.nn.functional.gelu(t),
        3: lambda: t + 1,
    }[kind]().numpy()
    with np.errstate(invalid="ignore"):
        got = core.rows(kind, x, np.ones_like(x) if kind == 3 else None, np.ones(128), np.zeros(128))
    assert np.array_equal(np.isnan(got), np.isnan(eager))


def test_softmax_of_a_row_of_masks(core, x):
    x[7] = -np.inf
    assert np.array_equal(nan_rows(core.rows(1, x)), np.arange(64) == 7)


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_attention(core, x, value, where):
    q, k, v = x[:, :64].copy(), x[:, 64:].copy(), x[:, :64] * 0.5
    {"q": q, "k": k, "v": v}[where][9, 33] = value
    eager = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(t.astype(np.float64))[None] for t in (q, k, v))
    )[0].numpy()
    with np.errstate(invalid="ignore"):
        got = core.attention(q, k, v)
    assert not (np.isnan(eager) & ~np.isnan(got)).any()
    if where == "q":
        assert np.array_equal(nan_rows(got), nan_rows(eager))


def test_zeroed_rows_hide_what_was_computed_in_them(core, x):
    """Rows outside the valid range are zero even where their sums are NaN."""
    x[40:] = np.nan
    got = core.gemm(x, np.ones((64, 128)), valid=(0, 40))
    assert (got[40:] == 0).all() and np.isfinite(got).all()
