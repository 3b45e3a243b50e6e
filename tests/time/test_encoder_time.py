"""Our encoder's modelled time: the closed form against the simulator's clock, the targets, and what-ifs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from torch_xdna.lowering import ops
from torch_xdna.lowering.time import Costs, estimate_encoder
from torch_xdna.lowering.time.kernels import STOCK_STEP, kernel_cycles
from torch_xdna.lowering.time.overlay_ops import time_region
from torch_xdna.lowering.whisper import MODELS, encoder_config, encoder_region
from torch_xdna.profile.simulated import simulated_seconds


def linear(rows: int, k: int, n: int, gelu: bool = False, residual: bool = False) -> ops.Region:
    values = [ops.Value(0, rows, k, "x"), ops.Value(1, rows, n, "y"), ops.Value(2, rows, n, "r")]
    op = ops.Linear(
        1, 0, "w", "b", ops.Activation.GELU if gelu else None, 2 if residual else None, name="linear"
    )
    params = (ops.Param("w", (n, k)), ops.Param("b", (n,)))
    return ops.Region(tuple(values), (0, 2) if residual else (0,), (1,), params, (op,))


def difference(region: ops.Region, columns: int, clock: float) -> float:
    costs = Costs(clock)
    closed = sum(op.seconds for op in time_region(region, costs, columns))
    return closed / simulated_seconds(region, columns, costs) - 1


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize(
    ("rows", "k", "n", "gelu", "residual"),
    [
        (1500, 512, 512, False, True),
        (1500, 384, 1536, True, False),
        (256, 2048, 512, False, True),
        (100, 64, 256, False, False),
        (64, 64, 64, False, False),
        (1, 512, 512, False, True),
        (2000, 128, 128, False, True),
        (700, 768, 768, False, True),
        (300, 1280, 5120, True, False),
    ],
)
def test_products_agree_with_the_simulator(columns, rows, k, n, gelu, residual):
    # One trip is over before the boundaries around it: the closed form adds them up.
    most = 0.13 if max(rows, k, n) <= 256 else 0.10
    assert abs(difference(linear(rows, k, n, gelu, residual), columns, 1.03)) <= most


@pytest.mark.parametrize(
    ("model", "context", "columns", "clock"),
    [
        ("base", 100, 4, 1.03),
        ("tiny", 20, 4, 0.8),
        ("tiny", 300, 2, 1.8),
        ("tiny", 100, 1, 1.6),
        ("tiny", 750, 2, 1.03),
        ("tiny", 1500, 4, 1.03),
        ("small", 100, 4, 1.31),
        ("base", 1500, 4, 1.6),
    ],
)
def test_encoders_agree_with_the_simulator(model, context, columns, clock):
    config = replace(MODELS[model], layers=1 if context == 1500 else 2)
    assert abs(difference(encoder_region(config, context), columns, clock)) <= 0.15


# ms at 1.03 and 1.6 GHz, context 1500, with the stock GEMM kernel's rate.
TARGETS = {"tiny": (50, 32), "base": (120, 75), "small": (350, 225)}


@pytest.mark.parametrize("model", TARGETS)
def test_targets(model):
    for clock, most in zip((1.03, 1.6), TARGETS[model]):
        assert estimate_encoder(model, clock_ghz=clock).seconds <= most * 1e-3


def test_a_layer_of_base_at_100_frames():
    ops = estimate_encoder("base", context=100, clock_ghz=1.03).ops
    layer = [op for op in ops if op.name.startswith("layers.3.")]
    assert len(layer) == 7
    assert sum(op.seconds for op in layer) <= 8.5e-3


def test_switches_keep_other_rates():
    assert kernel_cycles("gemm_step", stock_kernels=True) == STOCK_STEP
    assert kernel_cycles("attn_k", stock_kernels=True) > STOCK_STEP
    assert kernel_cycles("gemm_step", better_gemm=True) < STOCK_STEP / 2
    assert kernel_cycles("gemm_step", better_gemm=True) < kernel_cycles("gemm_step") < STOCK_STEP
    old = estimate_encoder("base", clock_ghz=1.03, stock_kernels=True)
    assert old.inputs["stock_kernels"] is True
    assert 0.08 < old.seconds < 0.1  # what was published with the kernels of before
    what_if = estimate_encoder("base", clock_ghz=1.03, better_gemm=True)
    assert what_if.seconds < estimate_encoder("base", clock_ghz=1.03).seconds
    assert what_if.inputs["better_gemm"] is True


def test_no_op_beats_the_array():
    for columns in (1, 2, 4):
        for op in estimate_encoder("base", clock_ghz=1.6, columns=columns).ops:
            assert op.efficiency(1.6, columns) < 0.71  # 2905 cycles for 2048 of products


def test_breakdown_adds_up_and_inputs_matter():
    found = estimate_encoder("base", clock_ghz=1.03)
    assert sum(found.breakdown.values()) == pytest.approx(found.seconds)
    assert sum(found.kinds.values()) + found.breakdown["dispatch"] == pytest.approx(found.seconds)
    assert found.real_time_factor == pytest.approx(30 / found.seconds)
    assert found.as_dict()["modelled"] is True
    seconds = [estimate_encoder("base", clock_ghz=1.03, columns=c).seconds for c in (1, 2, 4)]
    assert seconds == sorted(seconds, reverse=True)
    seconds = [estimate_encoder("base", clock_ghz=1.03, context=c).seconds for c in (100, 400, 1500)]
    assert seconds == sorted(seconds)
    assert estimate_encoder("base", clock_ghz=1.03, precision="int8").seconds < found.seconds


def test_configurations():
    assert encoder_config("openai/whisper-base") == encoder_config("base")
    assert encoder_config("openai/whisper-tiny.en") == MODELS["tiny"]
    given = {"encoder_layers": 1, "d_model": 64, "encoder_attention_heads": 1, "encoder_ffn_dim": 256}
    given["num_mel_bins"] = 80
    assert estimate_encoder(given, clock_ghz=1.0, context=4).seconds > 0
    for wrong in ({"columns": 3}, {"precision": "fp8"}, {"context": 0}):
        with pytest.raises(ValueError):
            estimate_encoder("base", clock_ghz=1.0, **wrong)
    with pytest.raises(ValueError, match="not known"):
        estimate_encoder("huge", clock_ghz=1.0)
