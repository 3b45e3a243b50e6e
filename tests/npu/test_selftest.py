"""`torch-xdna selftest`, end to end in the sandbox, and its parts."""

from __future__ import annotations

import io
import json
import threading
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
from torch_xdna.lowering.evaluate import evaluate
from torch_xdna.selftest.cases import all_cases
from torch_xdna.selftest.expected import compare, expected
from torch_xdna.selftest.rungs import Rung, climb


def test_in_the_sandbox(sandbox: Sandbox, overlay_file: str) -> None:
    report = sandbox.call("owner:selftest_report", xclbin=overlay_file, timeout=120)
    json.dumps(report)
    names = [case["name"] for case in report["cases"]]
    assert names == [case.name for case in all_cases(quick=True)]
    assert report["passed"], [case for case in report["cases"] if not case["passed"]]
    for case in report["cases"]:
        assert case["compared_with"] == "numpy reference" and case["finite"] and case["repeatable"]
        assert case["device_s"] > 0 and case["call_s"] >= case["device_s"] and case["modelled_s"] > 1e-4
    assert report["complete"] and {rung["status"] for rung in report["rungs"]} == {"passed"}, report["rungs"]
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
    rungs = {rung["name"]: rung for rung in report["rungs"]}
    assert rungs["device and context"]["status"] == rungs["sync"]["status"] == "passed"
    first = rungs["tokens of results"]
    assert (
        first["status"] == "failed" and "state ERROR" in first["error"] and first["causes"] and first["next"]
    )
    assert {rung["status"] for rung in report["rungs"][2:] if rung["name"] != "sync"} == {"skipped"}
    assert all("needs" in case["error"] and not case["passed"] for case in report["cases"])
    assert "state ERROR" in done.stdout and "likely" in done.stdout and "try" in done.stdout


def test_a_broken_array_is_found(sandbox: Sandbox, overlay_file: str) -> None:
    report = sandbox.call("owner:broken_array", xclbin=overlay_file, timeout=120)
    assert not report["passed"]
    assert [case["passed"] for case in report["cases"]] == [False] * len(report["cases"])
    assert report["rungs"][1]["status"] == "failed" and "facts" in report["rungs"][1], (
        "a wrong result, no error"
    )


@pytest.mark.parametrize("case", list(all_cases(quick=True)), ids=lambda case: case.name)
def test_reference_agrees_with_the_emulator(case) -> None:
    """Two implementations of the ops' definitions that share no code."""
    source, wanted = expected(case)
    assert source == "emulator"
    found = evaluate(case.region, case.params, case.inputs)
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
    rungs = json.loads((tmp_path / "out.json").read_text())["rungs"]
    assert rungs[0]["status"] == "failed" and rungs[0]["error"] == str(result.exception)
    assert {rung["status"] for rung in rungs[1:]} == {"skipped"}


def test_a_failure_at_each_rung(sandbox: Sandbox, overlay_file: str) -> None:
    """A rung that fails is reported as failed with its causes, what needs it is skipped, all else passes."""
    found = sandbox.call("owner:failing_at_each", xclbin=overlay_file, timeout=300)
    failed = [name for ladder in found["ladders"] for name in ladder["failing"]]
    assert len(failed) == len(set(failed)) == len(found["good"]) - 2, (
        "all but opening and syncing run something"
    )
    assert {rung["status"] for rung in found["good"]} == {"passed"}
    for ladder in found["ladders"]:
        status: dict[str, str] = {}
        for rung in ladder["rungs"]:
            unmet = any(status[need] in ("failed", "skipped") for need in rung["needs"])
            wanted = "skipped" if unmet else "failed" if rung["name"] in ladder["failing"] else "passed"
            assert rung["status"] == wanted, (ladder["failing"], rung)
            status[rung["name"]] = rung["status"]
            if wanted == "failed":
                assert rung["causes"] and rung["next"] and "state ERROR" in rung["error"]
            assert wanted != "skipped" or rung["reason"].startswith("needs ")
        assert set(ladder["failing"]) == {name for name, is_now in status.items() if is_now == "failed"}


def test_rungs_that_hang_and_rungs_that_are_wrong(sandbox: Sandbox, overlay_file: str) -> None:
    """Each with its own words; what doesn't need them runs on new contexts."""
    hanging, wrong = ["descriptors: iterated"], ["descriptors: repeated", "kernel row_apply: gelu"]
    whole = "encoder, 2 layers of 128"
    wrong.append(whole)
    results = sandbox.call(
        "owner:misbehaving", xclbin=overlay_file, hanging=hanging, wrong=wrong, timeout=120
    )
    rungs = {rung["name"]: rung for rung in results}
    assert {n for n, rung in rungs.items() if rung["status"] != "passed"} == {*hanging, *wrong}
    assert all("ended the run in state TIMEOUT" in rungs[name]["error"] for name in hanging)
    assert any('"iterated": False' in step for step in rungs[hanging[0]]["next"])
    for name in wrong:
        assert "error" not in rungs[name] and not rungs[name]["facts"]["passed"], "a wrong result, no error"
    assert any('"split": "layer"' in step for step in rungs[whole]["next"])
    assert rungs[f"{whole}, a dispatch per layer"]["facts"]["dispatches"] == 3


@pytest.mark.parametrize(
    "knob, value, said", [("CONTEXT_LIMIT", 0, "no hardware context"), ("DENY", 1, "render")]
)
def test_no_device_and_no_context(
    borrowed: BorrowedXrt, tmp_path: Path, knob: str, value: int, said: str
) -> None:
    """The first rung fails: its causes are in the file, all others are skipped, the command ends with the error."""
    borrowed.knob(knob, value)
    file = tmp_path / "report.json"
    done = CliRunner().invoke(command, ["--quick", "--output", str(file)])
    assert isinstance(done.exception, DeviceError) and said in str(done.exception)
    first, *others = json.loads(file.read_text())["rungs"]
    assert first["name"] == "device and context" and first["status"] == "failed"
    assert first["error"] == str(done.exception) and first["causes"] and first["next"]
    assert others and {rung["status"] for rung in others} == {"skipped"}


def test_what_hangs_is_left_behind_and_recorded() -> None:
    """The record is written before the next rung begins, and nothing waits for what never ends."""
    recorded: list[list[str]] = []
    never = threading.Event()

    def wait() -> dict:
        never.wait(5.0)
        return {}

    ladder = [
        Rung("fine", lambda: {}, 1.0),
        Rung("wrong", lambda: {"passed": False}, 1.0, causes=("a",), next=("b",)),
        Rung("needs wrong", lambda: {}, 1.0, needs=("wrong",)),
        Rung("can't", lambda: {"impossible": "no compiler"}, 1.0),
        Rung("still", lambda: {"seen": list(recorded[-1])}, 1.0, needs=("can't",)),
        Rung("hangs", wait, 0.05),
        Rung("after", lambda: {}, 1.0),
    ]
    results = climb(ladder, lambda done: recorded.append([r["status"] for r in done]), lambda name: None)
    never.set()
    assert recorded[-1] == ["passed", "failed", "skipped", "not possible", "passed", "failed", "skipped"]
    assert [len(statuses) for statuses in recorded] == list(range(1, 8))
    assert results[4]["facts"]["seen"] == recorded[3], "written before the next began"
    assert "no end within" in results[5]["error"] and "has not come back" in results[6]["reason"]
    assert results[1]["causes"] == ["a"] and results[1]["next"] == ["b"]
