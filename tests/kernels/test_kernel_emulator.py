"""The emulator device and the kernels mean the same: every op on the same operands, relative L2 of the difference."""

import numpy as np
import pytest
import torch
from core_driver import rounded
from whisper_like import fc1_activations, relative_l2, residual_stream

from torch_xdna.devices.emulator.executable import EmulatorExecutable
from torch_xdna.lowering import ops

AGREEMENT = 2e-3


@pytest.fixture
def random():
    return np.random.default_rng(23)


def emulate(inputs, params, make_op, out_shape):
    """One op through the emulator; `make_op` gets the ids of the inputs and of the output."""
    shapes = [x.shape for x in inputs] + [out_shape]
    values = tuple(ops.Value(i, *shape) for i, shape in enumerate(shapes))
    ids = tuple(range(len(inputs)))
    region = ops.Region(
        values,
        ids,
        (len(inputs),),
        tuple(ops.Param(name, tuple(p.shape)) for name, p in params.items()),
        (make_op(len(inputs), *ids),),
    )
    executable = EmulatorExecutable(region)
    packed = executable.pack({name: torch.tensor(p) for name, p in params.items()})
    tensors = [torch.tensor(x)[None].to(torch.bfloat16) for x in inputs]
    return executable.run(tensors, packed)[0][0].float().numpy()


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_linear(core, random, gelu, with_residual):
    x = residual_stream(random, 128, 512)
    w, bias = (
        rounded(random.standard_normal((128, 512)) * 0.05),
        random.standard_normal(128).astype(np.float32),
    )
    inputs = [x, rounded(random.standard_normal((128, 128)))] if with_residual else [x]
    want = emulate(
        inputs,
        {"w": w, "b": bias},
        lambda out, i, r=None: ops.Linear(
            out, i, "w", "b", activation=ops.Activation.GELU if gelu else None, residual=r
        ),
        (128, 128),
    )
    got = core.gemm(x, w, bias, gelu=gelu, residual=inputs[1] if with_residual else None)
    assert relative_l2(got, want) <= AGREEMENT


def test_layer_norm(core, random):
    x = residual_stream(random, 128, 512)
    gamma, beta = (random.standard_normal(512).astype(np.float32) for _ in range(2))
    want = emulate([x], {"g": gamma, "b": beta}, lambda out, i: ops.LayerNorm(out, i, "g", "b"), x.shape)
    assert relative_l2(core.rows(0, x, gamma=gamma, beta=beta), want) <= AGREEMENT


@pytest.mark.parametrize("cols", [100, 1500])
def test_softmax(core, random, cols):
    x = rounded(random.standard_normal((64, cols)) * 3)
    want = emulate([x], {}, lambda out, i: ops.Softmax(out, i), x.shape)
    assert relative_l2(core.rows(1, x), want) <= AGREEMENT


def test_gelu(core, random):
    x = fc1_activations(random, 128, 512)
    want = emulate([x], {}, lambda out, i: ops.Gelu(out, i), x.shape)
    assert relative_l2(core.rows(2, x), want) <= AGREEMENT


def test_add(core, random):
    x, y = residual_stream(random, 128, 512), rounded(random.standard_normal((128, 512)))
    want = emulate([x, y], {}, lambda out, i, j: ops.Add(out, i, j), x.shape)
    assert np.array_equal(core.rows(3, x, y), want)


@pytest.mark.parametrize("spread", [0.2, 1, 4])
def test_attention(core, random, spread, monkeypatch):
    """In fp32 products, which round p as the kernel does."""
    monkeypatch.setenv("TORCH_XDNA_EMULATOR", "fp32")
    q, k = (rounded(random.standard_normal((n, 64)) * spread) for n in (128, 1500))
    v = rounded(random.standard_normal((1500, 64)))
    want = emulate([q, k, v], {}, lambda out, a, b, c: ops.Attention(out, a, b, c, heads=1), q.shape)
    assert relative_l2(core.attention(q, k, v), want) <= AGREEMENT


def test_agreement_would_notice_the_other_gelu(core, random):
    """The tanh form and a truncating epilogue are outside of the bound: it is not loose."""
    x = fc1_activations(random, 128, 512)
    want = emulate([x], {}, lambda out, i: ops.Gelu(out, i), x.shape)
    tanh = torch.nn.functional.gelu(torch.tensor(x), approximate="tanh").numpy()
    exact = torch.nn.functional.gelu(torch.tensor(x)).numpy()
    truncated = (exact.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert relative_l2(rounded(tanh), want) > AGREEMENT / 2
    assert relative_l2(truncated, want) > AGREEMENT
