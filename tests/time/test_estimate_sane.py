"""The estimate of a product over shapes, tiles, types, cores and clocks: possible on hardware, no wrong turns."""

from __future__ import annotations

import random

import pytest

from torch_xdna.lowering.time import Estimate, estimate_encoder, estimate_gemm
from torch_xdna.lowering.time.gemm import _BYTES, PEAK_MACS, parse_dtype

SIZES = (1, 17, 63, 64, 65, 100, 500, 1024, 1500, 4096, 20000)
TILES = (
    (64, 64, 64),
    (64, 64, 32),
    (32, 64, 128),
    (128, 32, 64),
    (16, 64, 16),
    (48, 40, 24),
    (8, 8, 8),
    (1, 1, 1),
)
CORES = (1, 2, 3, 4, 8, 12, 16)
CLOCKS = (0.4, 0.8, 1.03, 1.31, 1.6, 1.8)
DTYPES = ("bf16", "bf16->bf16", "int8", "int8->int8", "int16")


def asked(seed: int) -> dict:
    pick = random.Random(seed).choice
    return {
        "m": pick(SIZES), "k": pick(SIZES), "n": pick(SIZES), "tile": pick(TILES), "dtype": pick(DTYPES),
        "cores": pick(CORES), "clock_ghz": pick(CLOCKS), "b_packed": pick((True, False)),
        "dispatch": pick(("none", "single", "stream")),
    }  # fmt: skip


def estimate(given: dict) -> Estimate:
    given = dict(given)
    shape = [given.pop(axis) for axis in "mkn"]
    return estimate_gemm(*shape, **given)


def seconds(given: dict, **changed) -> float:
    return estimate({**given, **changed}).seconds


@pytest.mark.parametrize("seed", range(0, 400, 20))
def test_possible_and_never_the_wrong_way(seed):
    for case in range(seed, seed + 20):
        given = asked(case)
        time = seconds(given)
        size, out = (_BYTES[name] for name in parse_dtype(given["dtype"]))
        m, k, n = (given[axis] for axis in "mkn")
        peak = PEAK_MACS[parse_dtype(given["dtype"])[0]] * given["cores"] * given["clock_ghz"] * 1e9
        assert time > m * k * n / peak
        assert time > max((m * k + k * n) * size / 47.62e9, m * n * out / 28.1e9)
        for clock in CLOCKS:
            assert (seconds(given, clock_ghz=clock) <= time * (1 + 1e-9)) or clock < given["clock_ghz"]
        for axis in "mkn":
            for larger in SIZES:
                assert (seconds(given, **{axis: larger}) >= time * (1 - 1e-9)) or larger < given[axis]
        assert seconds(given, b_packed=True) <= time * (1 + 1e-9)
        for cores in (
            CORES
        ):  # three more tasks to push per column and row of tiles: tiny tiles wait for the controller
            more = estimate({**given, "cores": cores})
            assert more.bound == "control" or more.seconds <= 1.35 * time + 20e-6 or cores < given["cores"]


def test_rates_of_types_where_the_cores_decide():
    def rate(dtype: str, **more) -> float:
        given = {"tile": (64, 64, 64), "clock_ghz": 1.0, "dispatch": "none", "a_packed": True, **more}
        return estimate_gemm(4096, 4096, 4096, dtype=dtype, b_packed=True, **given).gops

    assert rate("int8->int8") / rate("bf16->bf16") == pytest.approx(2.0, rel=0.1)
    assert rate("bf16->bf16") == pytest.approx(16 * rate("bf16->bf16", cores=1), rel=0.03)


def test_one_core_at_one_tile_is_the_kernel():
    found = estimate_gemm(64, 64, 64, cores=1, clock_ghz=1.8, dispatch="none")
    assert found.breakdown["kernel"] * 1.8e9 == pytest.approx(5427.4, rel=1e-3)
    assert found.seconds > found.breakdown["kernel"]


def test_row_major_b_costs_more_the_narrower_the_tile():
    def lost(tile_n: int) -> float:
        row_major, packed = (
            estimate_gemm(2048, 2048, 2048, tile=(64, 64, tile_n), b_packed=b, clock_ghz=1.8).seconds
            for b in (False, True)
        )
        return row_major / packed

    assert lost(16) > lost(32) > lost(64) >= 1.0
    assert lost(16) > 1.3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"m": 0}, "at least 1"),
        ({"k": -3}, "at least 1"),
        ({"n": "many"}, "whole numbers"),
        ({"m": 2.5}, "whole numbers"),
        ({"m": 10**400}, "at most"),
        ({"tile": (64, 64)}, "whole numbers"),
        ({"tile": (0, 64, 64)}, "at least 1"),
        ({"tile": (256, 256, 256)}, "of a core's 65536"),
        ({"tile": (64, 64, 64), "c_buffers": 2}, "of a core's 65536"),
        ({"c_buffers": 3}, "1 or 2"),
        ({"cores": 20}, "use 1-4, 8, 12 or 16"),
        ({"cores": 0}, "use 1-4"),
        ({"cores": "all"}, "use 1-4"),
        ({"clock_ghz": 0}, "GHz"),
        ({"clock_ghz": float("nan")}, "GHz"),
        ({"clock_ghz": 1800}, "GHz"),
        ({"clock_ghz": "fast"}, "GHz"),
        ({"dtype": "fp64"}, "not known"),
        ({"dispatch": -1.0}, "at least 0"),
    ],
)  # fmt: skip
def test_impossible_inputs_are_one_sentence(given, message):
    whole = {"m": 64, "k": 64, "n": 64, "clock_ghz": 1.0, **given}
    shape = [whole.pop(axis) for axis in "mkn"]
    with pytest.raises(ValueError, match=message) as error:
        estimate_gemm(*shape, **whole)
    assert "\n" not in str(error.value)


def test_encoders_of_impossible_configurations():
    config = {"encoder_layers": 1, "d_model": 512, "encoder_attention_heads": 4, "encoder_ffn_dim": 256}
    with pytest.raises(ValueError, match="num_mel_bins is None"):
        estimate_encoder(config, clock_ghz=1.0)
    with pytest.raises(ValueError, match="heads of 64"):
        estimate_encoder({**config, "num_mel_bins": 80}, clock_ghz=1.0)
    for wrong in ({"clock_ghz": float("inf")}, {"clock_ghz": 1.0, "context": 1.5}):
        with pytest.raises(ValueError):
            estimate_encoder("base", **wrong)
