"""Every kernel with the core's adder (`Kernels.exact`), beside the CPU's fp32 sums: how far apart results are.

The table in `kernels_xdna1.host` repeats what `pytest -s` prints here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from core_driver import Core, rounded
from whisper_like import fc1_activations, relative_l2, residual_stream

from torch_xdna.kernels_xdna1 import description, host

Op = Callable[[Core, np.random.Generator], np.ndarray]


def product(core: Core, random: np.random.Generator, **options) -> np.ndarray:
    x, w = residual_stream(random, 256, 512), rounded(random.standard_normal((64, 512)) * 0.05)
    return core.gemm(x, w, random.standard_normal(64).astype(np.float32), **options)


def with_residual(core: Core, random: np.random.Generator) -> np.ndarray:
    return product(core, random, residual=residual_stream(random, 256, 64))


def attention(core: Core, random: np.random.Generator) -> np.ndarray:
    q, k, v = (rounded(random.standard_normal((rows, 64))) for rows in (256, 300, 300))
    return core.attention(q, k, v)


def layer_norm(core: Core, random: np.random.Generator) -> np.ndarray:
    gamma, beta = (random.standard_normal(256).astype(np.float32) for _ in range(2))
    return core.rows(0, residual_stream(random, 256, 256), gamma=gamma, beta=beta)


# op -> (what runs it, its kernels beside the core program's own, least share of equal bf16 results, most relative L2)
OPS: dict[str, tuple[Op, set[str], float, float]] = {
    "product and bias": (
        product, {"gemm_init", "gemm_step", "gemm_params", "gemm_finish"}, 0.999, 2e-5),
    "product, gelu": (
        lambda core, random: product(core, random, gelu=True), {"gemm_params"}, 0.999, 2e-5),
    "product, residual": (with_residual, {"gemm_residual"}, 0.999, 2e-5),
    "attention": (attention, {"attn_q", "attn_init", "attn_k", "attn_finish"}, 0.999, 2e-4),
    "layer_norm": (layer_norm, {"row_stats", "row_apply"}, 0.999, 2e-5),
    "softmax": (
        lambda core, random: core.rows(1, rounded(random.standard_normal((256, 200)) * 3)), set(), 0.999, 2e-5),
    "gelu": (lambda core, random: core.rows(2, fc1_activations(random, 256, 256)), set(), 0.999, 2e-5),
    "add": (
        lambda core, random: core.rows(3, residual_stream(random, 256, 256), residual_stream(random, 256, 256)),
        set(), 1.0, 0.0),
}  # fmt: skip


def both_ways(kernels: host.Kernels, op: Op) -> tuple[np.ndarray, np.ndarray]:
    core = Core(kernels)
    usual = op(core, np.random.default_rng(11))
    kernels.exact(True)
    try:
        return usual, op(core, np.random.default_rng(11))
    finally:
        kernels.exact(False)


@pytest.mark.parametrize("name", OPS)
def test_results_differ_by_few_last_bits(checked_kernels: host.Kernels, name: str) -> None:
    op, _, equal, distance = OPS[name]
    usual, exact = both_ways(checked_kernels, op)
    print(f"{name}: {np.mean(exact == usual):.2%} equal, {relative_l2(exact, usual):.1e}")
    assert np.isfinite(exact).all()
    assert np.mean(exact == usual) >= equal
    assert relative_l2(exact, usual) <= distance


def test_every_kernel_is_among_them() -> None:
    run = {"read_header"}.union(*(kernels for _, kernels, _, _ in OPS.values()))
    assert run == {kernel.name for kernel in description.KERNELS}


@pytest.mark.parametrize("kind, x, y, wanted", [
    # the smaller operand is rounded to the larger one's grid first, ties to even, whatever the sum loses of it
    ("add", 1.0, 3 * 2.0**-25, 1 + 2.0**-23),  # IEEE: a tie that goes up as well
    ("sub", 1.0, 2.0**-24, 1.0),  # IEEE: 1 - 2^-24
    ("sub", 1.0, 3 * 2.0**-25, 1 - 2.0**-23),  # IEEE: 1 - 3 * 2^-25 to 1 - 2^-24 * 1.5 rounded
    ("add", 3.0, -3.0, 0.0),
    ("add", math.inf, 1.0, math.inf),
    ("add", 1e-40, 1.0, 1.0),
])  # fmt: skip
def test_the_adder(checked_kernels: host.Kernels, kind: str, x: float, y: float, wanted: float) -> None:
    a, b, out = (np.full(1, v, np.float32) for v in (x, -y if kind == "sub" else y, 0.0))
    checked_kernels.library.host_exact_add(a.ctypes.data, b.ctypes.data, out.ctypes.data, 1)
    assert out[0] == np.float32(wanted)


def test_the_adder_against_a_slow_one(checked_kernels: host.Kernels) -> None:
    """Random pairs, exponents near each other and apart, in exact integers."""
    random = np.random.default_rng(3)
    a, b = (
        (random.standard_normal(5000) * 2.0 ** random.integers(-14, 14, 5000)).astype(np.float32)
        for _ in range(2)
    )
    out = np.empty_like(a)
    checked_kernels.library.host_exact_add(a.ctypes.data, b.ctypes.data, out.ctypes.data, a.size)
    unit = np.exp2(np.floor(np.log2(np.maximum(abs(a), abs(b)).astype(np.float64))) - 23)
    on_grid = np.rint(a / unit) + np.rint(
        b / unit
    )  # float64 holds these exactly, and rint takes ties to even
    assert np.array_equal(out, (on_grid * unit).astype(np.float32))
    assert 0.001 < np.mean(out != a + b) < 0.5, "IEEE's sums are not the same"
