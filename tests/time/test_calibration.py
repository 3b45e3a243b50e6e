"""The model against published measurements: errors, fits, and what the closed form must do at its edges."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from torch_xdna.lowering.time import Costs, calibrate, estimate_gemm
from torch_xdna.lowering.time.__main__ import main
from torch_xdna.lowering.time.estimate import dispatch_seconds
from torch_xdna.lowering.time.gemm import KERNEL, gemm_kernel_cycles, parse_dtype
from torch_xdna.lowering.time.transfers import estimate_memcpy, estimate_read, estimate_shim_task


def test_array_rows_are_met():
    rows = calibrate.table()
    middle, worst = calibrate.summary(rows)
    assert middle <= 0.08 and worst <= 0.20
    published = [row["id"] for row in csv.DictReader(calibrate.CSV.open()) if row["layer"] == "array"]
    assert [row.id for row in rows if row.layer == "array"] == published


def test_every_row_is_predicted_but_those_of_another_kernel():
    predicted = {row.id for row in calibrate.table()}
    published = {row["id"] for row in csv.DictReader(calibrate.CSV.open())}
    # hand-written kernels; pure inputs of the model; traced loops (`python -m torch_xdna.kernels_xdna1 precedents`)
    traced = {name for name in published if name.startswith("K")}
    assert published - predicted == {"L1", "L10", "M6", "M8"} | traced


def test_constants_are_what_the_fit_gives():
    run, page = calibrate.fit_memory()
    used = Costs(1.0)
    assert (run, page) == pytest.approx((used.run_ns, used.page_ns), rel=0.02)
    for dtype, constants in KERNEL.items():
        assert calibrate.fit_kernel(dtype) == pytest.approx(constants, rel=0.01)


def test_memory_constants_matter():
    """A model that ignored runs and pages would miss the rows with narrow tiles of B by far."""

    def linear(clock: float) -> Costs:
        return replace(Costs(clock), run_ns=0.0, page_ns=0.0)

    assert calibrate.summary(calibrate.table(linear))[1] > 0.3


def test_other_tasks_of_the_shim():
    """The shim rows' notes: 1024 to 16384 words, not used for any constant of the model but the slope."""
    for words, cycles in ((2048, 2217), (8192, 8357), (16384, 16525)):
        estimate = estimate_shim_task(words, direction="s2mm", clock_ghz=1.03)
        assert estimate.seconds * 1.03e9 == pytest.approx(cycles, rel=0.03)
    for words, cycles in ((8192, 9121), (16384, 17963)):
        estimate = estimate_shim_task(words, direction="mm2s", clock_ghz=1.03)
        assert estimate.seconds * 1.03e9 == pytest.approx(cycles, rel=0.06)


@pytest.mark.parametrize(("run", "gbs"), [(16, 10), (32, 14), (64, 19.5), (128, 21), (256, 26)])
def test_reads_in_short_runs(run, gbs):
    """Published bandwidths by run length (18 to 21 GB/s at 64 B), four columns at 1.8 GHz."""
    estimate = estimate_memcpy(2**26, clock_ghz=1.8, run=run)
    assert 2**26 / estimate.seconds == pytest.approx(gbs * 1e9, rel=0.08)


def test_the_command_prints_a_row_each_and_the_errors(capsys):
    assert main(["calibrate"]) == 0
    text = capsys.readouterr().out
    assert "G11" in text and "median absolute error" in text
    assert main(["calibrate", "--markdown"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("|---")
    assert main(["nonsense"]) == 2


@pytest.mark.parametrize("tile", [(64, 64, 32), (64, 64, 64), (32, 64, 128), (128, 32, 64)])
def test_more_work_never_takes_less(tile):
    def seconds(m: int, k: int, n: int) -> float:
        return estimate_gemm(m, k, n, tile=tile, clock_ghz=1.6).seconds

    for size in (1, 63, 64, 100, 512, 1500):
        for axis in range(3):
            shape = [512, 512, 512]
            shape[axis] = size
            grown = list(shape)
            grown[axis] += 64
            assert seconds(*grown) >= seconds(*shape)


def test_what_helps_helps():
    def asked(**changed) -> float:
        given = {"tile": (64, 64, 32), "clock_ghz": 1.8, **changed}
        return estimate_gemm(2048, 2048, 2048, **given).seconds

    base = asked()
    assert asked(b_packed=True) < base
    assert asked(b_packed=True, a_packed=True) <= asked(b_packed=True)
    assert asked(clock_ghz=0.8) > base
    assert asked(cores=4) > asked(cores=8) > base
    assert asked(dtype="int8") < base <= asked(dtype="int16")
    assert asked(dispatch="jit") - base == pytest.approx(617e-6 - 140e-6)
    assert asked(dispatch="none") < asked(dispatch="runlist:64") < base
    assert asked(tile=(64, 64, 64), c_buffers=1) > asked(tile=(64, 64, 64), dtype="bf16->bf16")


def test_never_faster_than_the_stock_kernel_or_the_memory():
    estimate = estimate_gemm(4096, 4096, 4096, a_packed=True, b_packed=True, clock_ghz=1.6, dispatch="none")
    steps = (4096 // 64) ** 3 / 16
    assert estimate.seconds * 1.6e9 > steps * gemm_kernel_cycles(64, 64, 64)
    linear = estimate_read(2**30, clock_ghz=5.0)
    assert 2**30 / linear.seconds <= 47.62e9
    assert estimate_memcpy(2**26, clock_ghz=0.8).seconds > estimate_memcpy(2**26, clock_ghz=1.6).seconds


def test_names_of_types_and_dispatch():
    assert parse_dtype("bf16") == ("bf16", "f32")
    assert parse_dtype("int8") == ("int8", "int32")
    assert parse_dtype("bfloat16->bf16") == parse_dtype("bf16:bf16") == ("bf16", "bf16")
    assert parse_dtype("i8_i32") == ("int8", "int32")
    assert parse_dtype("int16") == ("int16", "int32")
    for wrong in ("f32", "bf16->f16", "bf16->int8", "int8->f32", ""):
        with pytest.raises(ValueError, match="not known"):
            parse_dtype(wrong)
    assert dispatch_seconds("runlist:1") == pytest.approx(147e-6)
    assert dispatch_seconds(1e-3) == dispatch_seconds("0.001") == 1e-3
    for kind in ("twice", "runlist:0", "runlist:x", "-1", "nan", -1.0, float("inf")):
        with pytest.raises(ValueError, match="dispatch"):
            dispatch_seconds(kind)


def test_refusals_name_the_cause():
    with pytest.raises(ValueError, match="cores"):
        estimate_gemm(64, 64, 64, cores=5, clock_ghz=1.0)
    with pytest.raises(ValueError, match="at least 1"):
        estimate_gemm(64, 0, 64, clock_ghz=1.0)


def test_the_json_form_says_modelled():
    found = estimate_gemm(64, 64, 64, clock_ghz=1.0).as_dict()
    assert found["modelled"] is True and found["seconds"] > 0
    assert found["inputs"]["clock_ghz"] == 1.0 and found["breakdown"]["dispatch"] == 140e-6
