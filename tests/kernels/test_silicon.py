"""The host's arithmetic against values captured on a Phoenix NPU (data/README.md)."""

import json
from pathlib import Path

import numpy as np
import pytest

from torch_xdna.kernels_xdna1 import silicon
from torch_xdna.kernels_xdna1.__main__ import main

DATA = Path(__file__).parent / "data"


def test_every_captured_value_matches():
    results = silicon.check(DATA)
    assert sum(r.values for r in results) == 10 * 96 + 27 * 16
    assert [str(r) for r in results if r.matching != r.values] == []


def test_vector_conversion_agrees_with_the_scalar_rule(kernels):
    """Kernels convert 16 lanes at a time; both paths, all edge inputs, through a kernel that only rounds."""
    from core_driver import Core, from_a_order, to_bf16, to_sums

    inputs = np.array(json.loads((DATA / "f32_to_bf16.json").read_text())["12"]["input_f32_bits"], np.uint32)
    expected = silicon.round_to_bf16(kernels, inputs, 12)
    core = Core(kernels)
    core.header(1, w7=1 << 20, w8=1)
    core.hdr[32:34] = 0
    core.acc[:] = to_sums(np.resize(inputs, 4096).view(np.float32).reshape(64, 64))
    core.call("gemm_finish", core.acc, core.c, core.hdr, 0, 0)
    got = to_bf16(from_a_order(core.c)).reshape(-1)[: len(inputs)]
    nan = (inputs & 0x7FFFFFFF) > 0x7F800000
    assert np.array_equal(got[~nan], expected[~nan])
    assert np.isnan(from_a_order(core.c).reshape(-1)[: len(inputs)][nan]).all()


def test_fast_products_are_within_one_fp32_ulp_of_the_adders(kernels):
    """Chained fp32 additions differ from the adder's aligned sum in the last bit, if at all."""
    worst = 0.0
    for case in json.loads((DATA / "mmul_4x8x4_bf16.json").read_text()):
        a, b = (np.array(case[key], np.uint16) for key in ("a_bf16_bits", "b_bf16_bits"))
        captured = np.array(case["c_f32_bits"], np.uint32).view(np.float32)
        finite = np.isfinite(captured)
        fast = silicon.matrix_unit(kernels, a, b, exact=False)[finite].astype(np.float64)
        worst = max([worst, *np.abs(fast / captured[finite] - 1)])
    assert 0 < worst < 2**-22


def test_command_counts_matches(capsys):
    assert main(["check-silicon", str(DATA)]) == 0
    out = capsys.readouterr().out
    assert "rounding mode 0: 96 of 96 match" in out and "1392 of 1392 values match" in out


def test_command_shows_a_difference(tmp_path, capsys):
    case = {"12": {"input_f32_bits": [0x3F800000, 0x3F808000], "output_bf16_bits": [0x3F80, 0x3F81]}}
    (tmp_path / "wrong.json").write_text(json.dumps(case))
    assert main(["check-silicon", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "1 of 2 match (50.00 %)" in out and "0x3f808000 gives 0x3f80, captured 0x3f81" in out


@pytest.mark.parametrize("content", [None, "[1, 2]", "{not json"])
def test_command_refuses_other_folders(tmp_path, capsys, content):
    if content:
        (tmp_path / "x.json").write_text(content)
    assert main(["check-silicon", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
