"""Every kernel against float64, with the bound that it must keep and what it reaches (max, relative L2)."""

import numpy as np
import pytest
import torch
from core_driver import bits_of, from_a_order, from_sums, parameter_block, rounded, to_f32, to_sums
from whisper_like import fc1_activations, hostile, relative_l2, residual_stream, ulp

GEMM_L2 = 4e-3
GELU_ULPS = 1.0  # of max(|y|, 1/64)
NORM_SHARE = 0.99  # of outputs within one ulp of correctly rounded
ATTENTION_L2 = 9e-3
SOFTMAX_SUM = 4e-3
SOFTMAX_L2 = 3e-3  # bf16 outputs alone: 1.6e-3


@pytest.fixture
def random():
    return np.random.default_rng(11)


def exact_gelu(x):
    return torch.nn.functional.gelu(torch.tensor(np.asarray(x, np.float64))).numpy()


def exact_norm(x, gamma, beta, eps):
    x, gamma, beta = (torch.tensor(np.asarray(t, np.float64)) for t in (x, gamma, beta))
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gamma, beta, eps).numpy()


def exact_attention(q, k, v, scale=0.125):
    q, k, v = (torch.tensor(np.asarray(t, np.float64))[None] for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)[0].numpy()


# ---- gemm ----


@pytest.mark.parametrize("k", [64, 512, 1280])
def test_gemm(core, random, k):
    x, w = residual_stream(random, 64, k), rounded(random.standard_normal((128, k)) * 0.05)
    bias = random.standard_normal(128).astype(np.float32)
    error = relative_l2(core.gemm(x, w, bias), x.astype(np.float64) @ w.T.astype(np.float64) + bias)
    assert error <= GEMM_L2, error


def test_gemm_of_hostile_operands(core, random):
    w = rounded(random.standard_normal((64, 128)) * 0.1)
    for name, x in hostile(random, 64, 128).items():
        error = relative_l2(core.gemm(x, w), x.astype(np.float64) @ w.T.astype(np.float64))
        assert error <= GEMM_L2, (name, error)


def test_gemm_epilogue_rounds_once(core, random):
    """GELU and residual work on fp32: correctly rounded wherever the sum is not next to a tie."""
    x, w = residual_stream(random, 64, 128), rounded(random.standard_normal((64, 128)) * 0.05)
    residual = residual_stream(random, 64, 64)
    exact = exact_gelu(x.astype(np.float64) @ w.T.astype(np.float64)) + residual
    got = core.gemm(x, w, gelu=True, residual=residual)
    assert np.mean(got == rounded(exact)) > 0.97
    assert relative_l2(got, exact) <= GEMM_L2


# ---- gelu ----


def test_gelu_of_every_bf16_number(core):
    x = to_f32(np.arange(1 << 16).astype(np.uint16)).reshape(256, 256)
    finite = np.isfinite(x)
    with np.errstate(invalid="ignore"):
        exact, got = exact_gelu(x), core.rows(2, x)
        distance = np.abs(got - exact)
    error = distance[finite] / ulp(np.maximum(np.abs(exact[finite]), 1 / 64))
    assert error.max() <= GELU_ULPS, (error.max(), x[finite][error.argmax()])
    assert np.array_equal(np.isnan(got), np.isnan(exact))


def test_gelu_of_fp32_sums(core):
    """The epilogue's GELU sees fp32: 200 000 of them, dense where the pieces meet."""
    edges = [np.linspace(e - 2e-3, e + 2e-3, 4096) for e in (-4.25, -2.25, -1, 0, 1, 2.25, 4.25)]
    x = np.concatenate([*edges, np.linspace(-8, 8, 42 * 4096)]).astype(np.float32).reshape(-1, 64, 64)
    worst = 0.0
    core.header(1, w7=1 << 20, w8=1)
    for block in x:
        core.acc[:] = to_sums(block)
        core.call("gemm_params", parameter_block(np.zeros(64), gelu=True), core.acc, core.hdr)
        core.call("gemm_finish", core.acc, core.c, core.hdr, 0, 0)
        exact = exact_gelu(block)
        error = np.abs(from_a_order(core.c) - exact) / ulp(np.maximum(np.abs(exact), 1 / 64))
        worst = max(worst, error.max())
    assert worst <= GELU_ULPS, worst


def test_gelu_is_relatively_exact_near_zero(core):
    """x/2 for tiny x of either sign, and zeros stay zero."""
    x = np.tile(np.float32([1e-30, -1e-30, 1e-4, -1e-4, 0.0, -0.0, 2.0**-100, -(2.0**-20)]), (64, 16))
    got, exact = core.rows(2, rounded(x)), exact_gelu(rounded(x))
    assert np.abs(got - exact).max() <= np.abs(exact).max() * 2**-8
    nonzero = exact != 0
    assert (np.abs(got - exact)[nonzero] <= np.abs(exact[nonzero]) * 2**-8).all()
    assert (got[~nonzero] == 0).all()


def test_gelu_of_fc1_activations(core, random):
    x = fc1_activations(random, 128, 512)
    assert relative_l2(core.rows(2, x), exact_gelu(x)) <= 2e-3


def test_gelu_far_below_zero_vanishes(core):
    got = core.rows(2, np.full((64, 64), -30.0, np.float32))
    assert np.abs(got).max() < 1e-6


# ---- layer_norm ----


@pytest.mark.parametrize("cols", [64, 384, 512, 1280])
def test_layer_norm(core, random, cols):
    x = residual_stream(random, 64, cols)
    gamma, beta = (random.standard_normal(cols).astype(np.float32) for _ in range(2))
    exact = exact_norm(x, gamma + 1, beta, 1e-5)
    got = core.rows(0, x, gamma=gamma + 1, beta=beta)
    assert np.mean(np.abs(got - rounded(exact)) <= ulp(exact)) >= NORM_SHARE
    assert relative_l2(got, exact) <= 2.5e-3


@pytest.mark.parametrize("mean", [0, 30, -1000, 3000])
def test_layer_norm_of_rows_far_from_zero(core, random, mean):
    """Sums of squares would cancel: at mean 3000 the spread is one bf16 ulp."""
    x = rounded(random.standard_normal((64, 512)) * 8 + mean)
    exact = exact_norm(x, np.ones(512), np.zeros(512), 1e-5)
    got = core.rows(0, x, gamma=np.ones(512), beta=np.zeros(512))
    assert np.mean(np.abs(got - rounded(exact)) <= ulp(exact)) >= NORM_SHARE


@pytest.mark.parametrize("cols", [64 + 8, 100, 1000])
@pytest.mark.parametrize("mean", [0, 3000])
def test_layer_norm_of_rows_that_end_inside_a_block(core, random, cols, mean):
    """The columns that fill the last block are not part of the row, whatever the pivot is."""
    x = rounded(random.standard_normal((64, cols)) * 8 + mean)
    exact = exact_norm(x, np.ones(cols), np.zeros(cols), 1e-5)
    got = core.rows(0, x, gamma=np.ones(cols), beta=np.zeros(cols))
    assert np.mean(np.abs(got - rounded(exact)) <= ulp(exact)) >= NORM_SHARE


def test_layer_norm_of_hostile_rows(core, random):
    for name, x in hostile(random, 64, 128).items():
        exact = exact_norm(x, np.ones(128), np.full(128, 0.5), 1e-5)
        got = core.rows(0, x, gamma=np.ones(128), beta=np.full(128, 0.5))
        assert np.mean(np.abs(got - rounded(exact)) <= ulp(exact)) >= NORM_SHARE, name


def test_layer_norm_of_rows_whose_blocks_differ(core, random):
    """The pivot comes from the first block; here it is nothing like the rest of the row."""
    x = random.standard_normal((64, 512))
    x[:, :64] += 1000
    exact = exact_norm(rounded(x), np.ones(512), np.zeros(512), 1e-5)
    got = core.rows(0, rounded(x), gamma=np.ones(512), beta=np.zeros(512))
    assert np.mean(np.abs(got - rounded(exact)) <= ulp(exact)) >= NORM_SHARE


def test_consecutive_norms_share_nothing(core, random):
    x = residual_stream(random, 64, 384)
    for scale in (1.0, -3.0):
        gamma, beta = np.full(384, scale, np.float32), np.full(384, 10 * scale, np.float32)
        exact = exact_norm(x, gamma, beta, 1e-5)
        assert relative_l2(core.rows(0, x, gamma=gamma, beta=beta), exact) <= 2.5e-3


# ---- softmax ----


@pytest.mark.parametrize("cols", [64, 100, 1500, 4096])
@pytest.mark.parametrize("spread", [0.1, 3, 40])
def test_softmax(core, random, cols, spread):
    x = rounded(random.standard_normal((64, cols)) * spread)
    got = core.rows(1, x)
    exact = torch.softmax(torch.tensor(x.astype(np.float64)), 1).numpy()
    assert np.abs(got.sum(1, dtype=np.float64) - 1).max() <= SOFTMAX_SUM
    assert relative_l2(got, exact) <= SOFTMAX_L2


def test_softmax_of_hostile_rows(core, random):
    for name, x in hostile(random, 64, 128).items():
        got = core.rows(1, x)
        exact = torch.softmax(torch.tensor(x.astype(np.float64)), 1).numpy()
        assert relative_l2(got, exact) <= SOFTMAX_L2, name
        assert np.abs(got.sum(1, dtype=np.float64) - 1).max() <= SOFTMAX_SUM, name


def test_softmax_of_masked_scores(core, random):
    """-inf is a mask in attention that is not fused: those columns are exactly zero."""
    x = rounded(random.standard_normal((64, 200)))
    x[:, 150:] = -np.inf
    got = core.rows(1, x)
    assert (got[:, 150:] == 0).all()
    assert relative_l2(got, torch.softmax(torch.tensor(x.astype(np.float64)), 1).numpy()) <= SOFTMAX_L2


# ---- attention ----


@pytest.mark.parametrize("spread", [0.2, 1, 4])
def test_attention_over_1500_keys(core, random, spread):
    q, k = (rounded(random.standard_normal((n, 64)) * spread) for n in (64, 1500))
    v = rounded(random.standard_normal((1500, 64)))
    error = relative_l2(core.attention(q, k, v, pad=5.0), exact_attention(q, k, v))
    assert error <= ATTENTION_L2, error


@pytest.mark.parametrize("keys", [1, 3, 4, 63, 64, 65, 130])
def test_attention_masks_keys(core, random, keys):
    q, k, v = (rounded(random.standard_normal((n, 64))) for n in (64, keys, keys))
    near, far = (core.attention(q, k, v, pad=pad) for pad in (0.0, 1e4))
    assert np.array_equal(near, far)
    assert relative_l2(near, exact_attention(q, k, v)) <= 4e-3


def test_attention_whose_maximum_keeps_rising(core, random):
    """Every key block raises the maximum, so O and the sums are rescaled each time."""
    keys = 640
    q = np.abs(rounded(random.standard_normal((64, 64)))) + 0.5
    k = rounded(random.standard_normal((keys, 64)) * 0.1 + np.linspace(-3, 3, keys)[:, None])
    v = rounded(random.standard_normal((keys, 64)))
    assert relative_l2(core.attention(rounded(q), k, v), exact_attention(rounded(q), k, v)) <= ATTENTION_L2


@pytest.mark.parametrize("shift", [-1, 1])
def test_attention_with_scores_far_from_zero(core, random, shift):
    """All scores near +-16 000 (and their differences moderate): also with negative maxima."""
    q = np.full((64, 64), 32.0, np.float32)
    k = rounded(np.full((128, 64), 64.0 * shift))
    k[:, 0] = rounded(np.linspace(-1, 1, 128))
    v = rounded(random.standard_normal((128, 64)))
    assert relative_l2(core.attention(q, k, v), exact_attention(q, k, v)) <= ATTENTION_L2


def test_attention_of_hostile_operands(core, random):
    v = rounded(random.standard_normal((64, 64)))
    for name, x in hostile(random, 64, 64).items():
        k = rounded(random.standard_normal((64, 64)))
        assert relative_l2(core.attention(x, k, v), exact_attention(x, k, v)) <= ATTENTION_L2, name


def test_attention_with_one_huge_negative_score(core):
    """A single valid key has all the weight, whatever its score."""
    q, k = np.full((64, 64), 1e4, np.float32), np.full((1, 64), -1e4, np.float32)
    v = np.arange(64, dtype=np.float32)[None]
    assert np.array_equal(core.attention(rounded(q), rounded(k), v), np.broadcast_to(v, (64, 64)))


# ---- the adder ----


def test_the_fast_product_is_as_good_as_the_cores(checked_kernels, kernels, random):
    """The CPU chains fp32 additions, the core aligns eight products to one grid: how far apart they end."""
    from core_driver import Core, a_order, b_order

    a, b = (rounded(random.standard_normal((64, 64))) for _ in range(2))
    results = []
    for chosen, exact in ((kernels, False), (checked_kernels, True)):
        core = Core(chosen)
        if exact:
            chosen.exact(True)
        try:
            core.call("gemm_init", core.acc)
            for _ in range(4):
                core.call("gemm_step", a_order(a), b_order(b), core.acc)
        finally:
            if exact:
                chosen.exact(False)
        results.append(from_sums(core.acc).astype(np.float64))
    reference = 4 * (a.astype(np.float64) @ b.astype(np.float64))
    fast, exact = (relative_l2(r, reference) for r in results)
    assert fast < 3e-7 and exact < 3e-7, (fast, exact)
    assert relative_l2(results[0], results[1]) < 3e-7
    assert bits_of(results[0][0, 0]) != 0
