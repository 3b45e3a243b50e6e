"""`torch-xdna selftest`, end to end in the sandbox, and its parts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from borrowed_xrt import BorrowedXrt
from click.testing import CliRunner
from rich.console import Console
from sandbox.host import Sandbox

from torch_xdna.cli.selftest import command, show
from torch_xdna.devices.npu import runtime
from torch_xdna.errors import DeviceError
from torch_xdna.selftest import reference
from torch_xdna.selftest.cases import all_cases
from torch_xdna.selftest.expected import compare, expected


def test_in_the_sandbox(sandbox: Sandbox, overlay_file: str) -> None:
    report = sandbox.call("owner:selftest_report", xclbin=overlay_file, timeout=120)
    json.dumps(report)
    names = [case["name"] for case in report["cases"]]
    assert names == [case.name for case in all_cases(quick=True)]
    assert report["passed"], [case for case in report["cases"] if not case["passed"]]
    for case in report["cases"]:
        assert case["compared_with"] == "numpy reference" and case["finite"] and case["repeatable"]
        assert case["device_s"] > 0 and case["call_s"] >= case["device_s"] and case["modelled_s"] > 1e-4
    assert report["dispatch"]["median_s"] > 0 and report["dispatch"]["instructions"] > 0
    assert report["bandwidth"]["bytes"] >= 3 * 256 * 256 * 2, "two matrices in, one out"
    assert report["modelled_at"]["clock"] == "assumed", "the stand-in's clock is an idle one"
    assert {check["name"] for check in report["doctor"]} >= {"chip", "XRT", "overlay"}
    assert report["driver"]["firmware"] == "1.5.5.391"
    console = Console(file=io.StringIO(), width=140)
    show(report, console)
    text = console.file.getvalue()
    assert "modelled ms at 1.6 GHz" in text and "measured ms" in text and "bandwidth of add" in text
    assert report["sync"]["s_per_mb"] > 0 and report["sync"]["by"] in text and "by XRT" in text


def test_command_line(borrowed: BorrowedXrt, tmp_path: Path) -> None:
    """As an owner runs it, torch included: then the emulator says what is right."""
    file = tmp_path / "report.json"
    arguments = ["--quick", "--repeats", "1", "--output", str(file)]
    done = CliRunner().invoke(command, arguments)
    report = json.loads(file.read_text())
    assert done.exit_code == 0 and report["passed"], done.output
    assert {case["compared_with"] for case in report["cases"]} == {"emulator"}
    assert f"written to {file}" in done.stdout and "rel. error" in done.stdout


def test_an_npu_that_fails_leaves_a_report(borrowed: BorrowedXrt, tmp_path: Path) -> None:
    """Whoever has a broken NPU is whoever has a bug to report."""
    runtime()
    borrowed.fail("ERROR", -1)
    file = tmp_path / "report.json"
    done = CliRunner().invoke(command, ["--quick", "--repeats", "1", "--output", str(file)])
    report = json.loads(file.read_text())
    assert done.exit_code == 1 and not report["passed"]
    assert all("state ERROR" in case["error"] and not case["passed"] for case in report["cases"])
    assert "state ERROR" in report["dispatch"]["error"] and "dispatch: the NPU ended" in done.stdout


def test_a_broken_array_is_found(sandbox: Sandbox, overlay_file: str) -> None:
    report = sandbox.call("owner:broken_array", xclbin=overlay_file, timeout=120)
    assert not report["passed"]
    assert [case["passed"] for case in report["cases"]] == [False] * len(report["cases"])


@pytest.mark.parametrize("case", list(all_cases(quick=True)), ids=lambda case: case.name)
def test_reference_agrees_with_the_emulator(case) -> None:
    """Two implementations of the ops' definitions that share no code."""
    source, wanted = expected(case)
    assert source == "emulator"
    found = reference.run(case.region, case.params, case.inputs)
    assert compare(found, wanted)["relative_l2"] < case.tolerance / 2


def test_comparison_sees_what_is_wrong() -> None:
    x = [np.ones((4, 4), np.float32)]
    assert compare(x, x) == {"finite": True, "relative_l2": 0.0, "max_abs": 0.0, "equal_elements": 1.0}
    one_off = [x[0].copy()]
    one_off[0][2, 2] = 1.5
    assert compare(one_off, x)["max_abs"] == 0.5
    one_off[0][2, 2] = np.nan
    assert not compare(one_off, x)["finite"] and compare(one_off, x)["relative_l2"] == np.inf


def test_without_hardware_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("TORCH_XDNA_OVERLAY", str(tmp_path / "none.xclbin"))
    result = CliRunner().invoke(command, ["--quick", "--output", str(tmp_path / "out.json")])
    assert isinstance(result.exception, DeviceError)
    assert "install python3-xrt" in str(result.exception) or "torch-xdna" in str(result.exception)
    assert not (tmp_path / "out.json").exists()
