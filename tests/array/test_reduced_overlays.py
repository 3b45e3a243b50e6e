"""Overlays that can do less: what they hold gives the same bits, what they lack is refused by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.devices.array.simulator import Simulator
from torch_xdna.lowering import lower, ops
from torch_xdna.lowering.ops import Param, Region, Value
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.overlay.variants import FULL, LEAN, PRODUCTS, VARIANTS, Variant

ROWS, COLS = 70, 128
X, Y, OUT = Value(0, ROWS, COLS), Value(1, ROWS, COLS), Value(2, ROWS, COLS)
LINEAR = ops.Linear(2, 0, "w", "b", activation=ops.Activation.GELU, residual=None)
OPS = {
    "gemm": (LINEAR, (Param("w", (COLS, COLS)), Param("b", (COLS,)))),
    "layer_norm": (ops.LayerNorm(2, 0, "g", "h"), (Param("g", (COLS,)), Param("h", (COLS,)))),
    "attention": (ops.Attention(2, 0, 1, 0, 2), ()),
    "softmax": (ops.Softmax(2, 0), ()),
    "gelu": (ops.Gelu(2, 0), ()),
    "add": (ops.Add(2, 0, 1), ()),
}


def _run(kind: str, variant: Variant) -> np.ndarray:
    op, params = OPS[kind]
    inputs = tuple(dict.fromkeys(op.inputs))
    values = tuple(v for v in (X, Y, OUT) if v.id in (*inputs, 2))
    program = lower(Region(values, inputs, (2,), params, (op,)), columns=1)
    random = np.random.default_rng(3)
    weights = program.pack_weights({p.name: random.standard_normal(p.shape, np.float32) for p in params})
    activations = np.full(program.activations_bytes, 0xFF, np.uint8)
    program.pack_inputs([random.standard_normal((ROWS, COLS), np.float32) for _ in inputs], activations)
    Simulator(overlay(1, variant)).run(program.words, [weights, activations])
    (result,) = program.unpack_outputs(activations)
    return result


@pytest.mark.parametrize("variant", [LEAN, PRODUCTS], ids=lambda v: v.name)
@pytest.mark.parametrize("kind", OPS)
def test_an_op_gives_the_same_bits_or_is_refused_by_name(kind: str, variant: Variant) -> None:
    if kind in variant.ops:
        np.testing.assert_array_equal(_run(kind, variant), _run(kind, FULL))
        return
    with pytest.raises(HardwareFault, match=f"overlay '{variant.name}'"):
        _run(kind, variant)


def test_each_variant_can_do_less_than_the_one_before() -> None:
    for larger, smaller in itertools.pairwise(VARIANTS):
        assert set(smaller.ops) < set(larger.ops)
        assert set(smaller.kernels) <= set(larger.kernels)
    assert FULL.lacking(["gemm", "softmax"]) == () and FULL.program is overlay(4).program
    assert PRODUCTS.lacking(["attention", "gemm", "attention"]) == ("attention",)
    assert not any(name.startswith("attn") for name in PRODUCTS.kernels)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_buffers_and_fifos_stay_so_that_streams_stay(columns: int) -> None:
    whole = overlay(columns)
    for variant in VARIANTS:
        small = overlay(columns, variant)
        assert (small.fifos, small.links, small.buffers) == (whole.fifos, whole.links, whole.buffers)
