"""Identity and permutation operands: a wrong block order gives a permuted result, which all-ones would hide."""

import numpy as np
import pytest
from core_driver import a_order, b_order, from_a_order, from_b_order, from_sums, rounded, to_bf16

PERMUTATION = np.random.default_rng(3).permutation(64)


def numbered(rows=64, cols=64):
    """Every element different from its neighbours in all directions, exact in bf16."""
    r, c = np.mgrid[:rows, :cols]
    return ((r * 7 + c * 3) % 251 - 125).astype(np.float32)


@pytest.fixture
def step(core):
    def product(a, b):
        core.call("gemm_init", core.acc)
        core.call("gemm_step", a_order(a), b_order(b), core.acc)
        return from_sums(core.acc)

    return product


def test_product_with_the_identity_is_the_block(step):
    x = numbered()
    assert np.array_equal(step(x, np.eye(64)), x)
    assert np.array_equal(step(np.eye(64), x), x)


def test_product_with_a_permutation_permutes_rows_and_columns(step):
    x, p = numbered(), np.eye(64)[PERMUTATION]
    assert np.array_equal(step(p, x), x[PERMUTATION])
    assert np.array_equal(step(x, p.T), x[:, PERMUTATION])


def test_steps_accumulate(core):
    core.call("gemm_init", core.acc)
    for _ in range(3):
        core.call("gemm_step", a_order(np.eye(64)), b_order(numbered()), core.acc)
    assert np.array_equal(from_sums(core.acc), 3 * numbered())


def test_weights_are_stored_by_output_feature(core):
    x, w = numbered(), np.eye(64, dtype=np.float32)[PERMUTATION]
    assert np.array_equal(core.gemm(x, w), x @ w.T)


def test_bias_belongs_to_columns(core):
    bias = np.arange(64, dtype=np.float32) - 20
    got = core.gemm(np.zeros((64, 64)), np.zeros((64, 64)), bias)
    assert np.array_equal(got, np.broadcast_to(bias, (64, 64)))


def test_residual_keeps_its_place_and_others_are_passed_over(core):
    residual = numbered()
    got = core.gemm(np.zeros((64, 64)), np.zeros((64, 64)), residual=residual)
    assert np.array_equal(got, residual)


@pytest.mark.parametrize("order", [1, 2])
def test_keys_and_values_come_out_as_operands_of_attention(core, order):
    raw = core.gemm(numbered(), np.eye(64), order=order)[0, 0]
    block = from_b_order(raw)
    assert np.array_equal(block.T if order == 1 else block, numbered())


def test_orders_follow_each_panels_own_parameters(core):
    """Two panels of one op with different orders: nothing of the first may stay."""
    first = core.gemm(numbered(), np.eye(64), order=2)[0, 0]
    second = core.gemm(numbered(), np.eye(64))
    assert np.array_equal(from_b_order(first), second)


@pytest.mark.parametrize("valid", [(1, 1 << 20), (0, 300), (1, 257), (130, 131)])
def test_rows_outside_the_valid_range_are_zero(core, valid):
    x = np.abs(numbered(512, 64)) + 1
    got = core.gemm(x, np.eye(64), np.ones(64, np.float32), residual=np.ones((512, 64)), valid=valid)
    inside = (np.arange(512) >= valid[0]) & (np.arange(512) < valid[1])
    assert np.array_equal(got[~inside], np.zeros((np.sum(~inside), 64)))
    assert np.array_equal(got[inside], rounded(x[inside] + 2))
    assert not np.signbit(got[~inside]).any()


def test_row_groups_wrap_for_every_output_column(core):
    """Trip o works on row group o % G: the valid range must follow it through all columns."""
    x = np.ones((768, 64), np.float32)
    got = core.gemm(x, np.ones((192, 64), np.float32), valid=(300, 600))
    assert np.array_equal(np.flatnonzero(got[:, 0]), np.arange(300, 600))
    assert np.array_equal(got[:, :1] != 0, (got != 0).all(1, keepdims=True))


def test_query_block_is_copied_only_for_its_column(core):
    block = a_order(numbered())
    core.c[:] = 0
    core.call("attn_q", block, core.c, 2, 1)
    assert not core.c.any()
    core.call("attn_q", block, core.c, 1, 1)
    assert np.array_equal(core.c, block)


def test_attention_finds_the_matching_key(core):
    """Queries that fit one key each (the others weigh e^-64): the output is the permuted values."""
    q = 64 * np.eye(64, dtype=np.float32)
    k = np.eye(64, dtype=np.float32)[PERMUTATION]
    v = numbered()
    got = core.attention(q, k, v, scale=1.0)
    assert np.allclose(got, v[np.argsort(PERMUTATION)], rtol=0, atol=1e-24)


def test_layer_norm_parameters_belong_to_columns_of_the_whole_row(core):
    cols = 384
    x = np.tile(np.array([1.0, -1.0], np.float32), (64, cols // 2))
    gamma = np.arange(cols, dtype=np.float32) % 61
    beta = np.arange(cols, dtype=np.float32) % 53 + 100
    assert np.array_equal(core.rows(0, x, gamma=gamma, beta=beta, eps=0.0), rounded(x * gamma + beta))


def test_rows_of_a_row_operation_do_not_mix(core):
    x = numbered(128, 320)
    assert np.array_equal(core.rows(3, x, np.zeros_like(x)), x)
    norms = core.rows(0, x * np.linspace(1, 9, 128)[:, None], gamma=np.ones(320), beta=np.zeros(320))
    assert np.allclose(norms.mean(1), 0, atol=1e-2) and np.allclose(norms.std(1), 1, atol=1e-2)


def test_addition_takes_x_then_y(core):
    x, y = numbered(64, 576), numbered(64, 576)[::-1].copy()
    assert np.array_equal(core.rows(3, x, y), rounded(x + y))


def test_header_words_are_kept(core):
    block = np.zeros(4096, np.uint16)
    block.view(np.int32)[:40] = np.arange(40) + 1
    core.hdr[:] = -5
    core.call("read_header", block, core.hdr)
    assert np.array_equal(core.hdr[:32], np.arange(32) + 1)
    assert (core.hdr[32:] == -5).all()


def test_the_orders_of_this_file_are_inverses():
    x = numbered()
    assert np.array_equal(from_a_order(a_order(x)), x)
    assert np.array_equal(from_b_order(b_order(x)), x)
    assert np.array_equal(to_bf16(x), to_bf16(rounded(x)))
