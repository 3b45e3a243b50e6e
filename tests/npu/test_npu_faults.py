"""What the NPU runtime survives: real pyxrt and shim, a stand-in for the kernel driver that fails on
request."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sandbox.host import Sandbox

GOOD, SECOND, THIRD = 7.0, 11.0, 13.0  # 2 x + 1 for the x of the runs


def test_runs_and_counts(sandbox: Sandbox, overlay_file: str) -> None:
    cost = sandbox.call("faults:count_everything", xclbin=overlay_file)
    assert cost["dispatches"] == cost["runs"] == 1 and cost["overlay_changes"] == 0
    assert cost["waits"] == 0, "a blocking wait in the driver holds the interpreter's lock"
    assert cost["to"] == cost["size"] + 2 * 64, "inputs, and a mark in each of the two output blocks"
    assert cost["from"] == cost["size"]


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"DENY": 1}, "usermod -aG render"),
        ({"GONE": 1}, "torch-xdna doctor"),
        ({"MEMLOCK_BYTES": 8 << 20}, "memlock"),
        ({"CONTEXT_LIMIT": 0}, "no hardware context became free within 0.2 s"),
        ({"ALLOC_FAILS": 1}, None),  # nothing is allocated on opening but the overlay itself
    ],
)
def test_opening(sandbox: Sandbox, overlay_file: str, knobs: dict[str, int], says: str | None) -> None:
    answer = sandbox.call("faults:open_only", knobs=knobs, xclbin=overlay_file)
    if says is None and answer == 0:
        return
    kind, sentence = answer
    assert kind.startswith("Npu") and (says or "memory") in sentence
    assert "Traceback" not in sentence and "\n" not in sentence


def test_no_device(sandbox: Sandbox, overlay_file: str) -> None:
    shutil.rmtree(sandbox.machine / "sys")
    kind, sentence = sandbox.call("faults:open_only", xclbin=overlay_file)
    assert (kind, sentence.split(";")[0]) == ("NpuUnavailable", "XRT sees no NPU")


def test_other_chip(sandbox: Sandbox, overlay_file: str) -> None:
    for file in sandbox.machine.rglob("vbnv"):
        file.write_text("RyzenAI-npu4\n")
    kind, sentence = sandbox.call("faults:open_only", xclbin=overlay_file)
    assert kind == "NpuUnavailable" and "XDNA2" in sentence and "Phoenix" in sentence


@pytest.mark.parametrize(
    "damage", ["missing", "folder", "text", "truncated", "corrupt", "foreign", "old", "columns"]
)
def test_bad_overlays(sandbox: Sandbox, overlay_file: str, damage: str, tmp_path: Path) -> None:
    good = Path(overlay_file).read_bytes()
    bad = tmp_path / "bad.xclbin"
    columns = 4
    expected = "torch-xdna build-overlay"
    if damage == "folder":
        bad.mkdir()
    elif damage == "text":
        bad.write_text("not an overlay")
    elif damage == "truncated":
        bad.write_bytes(good[: len(good) // 2])
        expected = "is damaged"
    elif damage == "corrupt":  # right length, right name, sections that point nowhere
        bad.write_bytes(good[:320] + bytes(480) + good[800:])
    elif damage == "foreign":
        bad = sandbox.xclbin("bad.xclbin", kernel="MLIR_AIE")
        expected = "was not built by this package"
    elif damage == "old":
        bad = sandbox.xclbin("bad.xclbin", kernel="xdna1_4c_0123456789ab")
        expected = "of another version"
    elif damage == "columns":
        bad, columns, expected = Path(overlay_file), 2, "--columns 2"
    kind, sentence = sandbox.call("faults:open_only", xclbin=str(bad), columns=columns)
    assert kind == "NpuUnavailable" and expected in sentence and "\n" not in sentence


RECOVERED = {"second": SECOND, "third": THIRD, "contexts": 2, "failed": 1, "overlay_changes": 1}


@pytest.mark.parametrize(
    "fault",
    [
        {"FAIL": 1, "FAIL_STATE": 5},
        {"FAIL": 1, "FAIL_STATE": 6},
        {"FAIL": 1, "FAIL_STATE": 8},
        {"SKIP": 1},
        {"SUBMIT_FAILS": 1},
    ],
    ids=["error", "abort", "timeout", "output untouched", "submit"],
)
def test_one_failure_is_retried_on_a_new_context(sandbox: Sandbox, overlay_file: str, fault: dict) -> None:
    got = sandbox.call("faults:injected", xclbin=overlay_file, set=fault)
    assert {k: got[k] for k in RECOVERED} == RECOVERED
    assert got["closed"] >= 1, "the failed context was closed before the new one was needed"
    assert got["kept"] == 0


@pytest.mark.parametrize("in_tree", [1, 0], ids=["in-tree driver", "out-of-tree driver"])
@pytest.mark.parametrize("ends_in", [6, 8], ids=["abort", "timeout"])
def test_hang_ended_by_the_drivers_watchdog(
    sandbox: Sandbox, overlay_file: str, in_tree: int, ends_in: int
) -> None:
    watchdog = {"WATCHDOG_MS": 200, "WATCHDOG_STATE": ends_in}
    got = sandbox.call(
        "faults:injected", knobs={"SYNCOBJ": in_tree}, xclbin=overlay_file, set={"HANG": 1}, watchdog=watchdog
    )
    assert {k: got[k] for k in RECOVERED} == RECOVERED and got["closed"] >= 1
    assert got["seconds"] < 1.0


@pytest.mark.parametrize("in_tree", [1, 0], ids=["in-tree driver", "out-of-tree driver"])
def test_hang_for_ever(sandbox: Sandbox, overlay_file: str, in_tree: int) -> None:
    got = sandbox.call("faults:injected", knobs={"SYNCOBJ": in_tree}, xclbin=overlay_file, set={"HANG": -1})
    assert got["first"] == GOOD
    kind, sentence = got["second"]
    assert kind == "RunFailed" and "no answer from the NPU within 1 s" in sentence
    assert got["third"][0] == "NpuOff" and "reset()" in got["third"][1]
    assert got["seconds"] < 4.0


def test_device_vanishes(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:injected", xclbin=overlay_file, set={"GONE": 1})
    kind, sentence = got["second"]
    assert kind == "RunFailed" and "modprobe" in sentence
    assert got["third"][0] == "NpuOff"


def test_off_until_asked_again(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:off_and_on", xclbin=overlay_file)
    assert got["failed"][0] == "RunFailed" and "state ERROR" in got["failed"][1]
    assert got["off"][0] == "NpuOff" and got["quiet"], "nothing is sent while the NPU is off"
    assert got["opened"][0] == "NpuOff"
    assert got["on"] == GOOD


def test_failures_leave_no_context_behind(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:failing_for_long", xclbin=overlay_file)
    assert got == {"kept": 8, "said": ["RunFailed"], "open": 0, "after": GOOD}


def test_a_run_that_ended_late_is_let_go(sandbox: Sandbox, overlay_file: str) -> None:
    """It would hold its hardware context for the life of the process."""
    got = sandbox.call("faults:ended_late", xclbin=overlay_file)
    assert got == {"during": 1, "value": GOOD, "after": 0}


@pytest.mark.parametrize("seed", [0, 9, 15])
def test_storm(sandbox: Sandbox, overlay_file: str, seed: int) -> None:
    """Three threads, programs and weights that come and go, faults all the time: right numbers or a clear error, and
    nothing is left behind. (Found: a context closed under another thread, contexts kept by runs that ended late.)"""
    got = sandbox.call("storm:storm", xclbin=overlay_file, seed=seed)
    assert got["wrong"] == [] and got["stuck"] == 0 and got["after"] == GOOD
    assert got["right"] > 20 and got["refused"] > 0 and got["made"] > 5, "it was a storm"
    assert got["open"] == 1 and got["kept"] == 0
    assert got["buffers"] == 3, "instructions, weights and activations of the one program that is left"


def test_nothing_of_a_failed_run_is_returned(sandbox: Sandbox, overlay_file: str) -> None:
    kind, sentence = sandbox.call("faults:refusing_array", xclbin=overlay_file)
    assert kind == "RunFailed" and "state ERROR" in sentence


def test_half_written_output(sandbox: Sandbox, overlay_file: str) -> None:
    kind, sentence = sandbox.call("faults:half_written", xclbin=overlay_file)
    assert kind == "RunFailed" and "left 1 of 2 output blocks" in sentence


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_dispatch_of_a_split_program_fails(sandbox: Sandbox, overlay_file: str, failing: int) -> None:
    """The clip begins again with its first dispatch, on a new context; after a second failure that is the result."""
    whole, begun = [0, 1, 2], list(range(failing + 1))
    once = sandbox.call("faults:split_program", xclbin=overlay_file, failing=failing, times=1)
    assert once["found"] == 7.0 and once["order"] == begun + whole and once["dispatches"] == failing + 4
    twice = sandbox.call("faults:split_program", xclbin=overlay_file, failing=failing, times=2)
    assert twice["found"][0] == "RunFailed" and "state ERROR" in twice["found"][1]
    assert twice["order"] == 2 * begun


def test_damaged_weights(sandbox: Sandbox, overlay_file: str) -> None:
    kind, sentence = sandbox.call("faults:damaged_weights", xclbin=overlay_file)
    assert kind == "RunFailed" and "damaged the model's weights" in sentence


def test_allocation_failure(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:allocation", xclbin=overlay_file)
    assert got["failed"][0] == "NpuMemory" and "activations" in got["failed"][1]
    assert got["after"] == GOOD and got["contexts"] == 1, "a new context gains no memory"


def test_instruction_heap_full(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:heap_full", knobs={"HEAP_BYTES": 4 << 20}, xclbin=overlay_file)
    assert got["found"] == [5.0] * 12
    assert got["large"][0] == "NpuMemory" and "2,000,000 instruction words" in got["large"][1]
    assert got["after"] == GOOD and got["contexts"] == 1


def test_threads(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:threads", xclbin=overlay_file)
    assert got["wrong"] == [] and got["contexts"] == 1
    assert got["ticks_per_s"] > 50, "other threads starve while the NPU runs"


def test_threads_and_failures(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:threads_and_failures", xclbin=overlay_file)
    assert len(got["results"]) == 16
    for value, answer in got["results"]:
        assert answer == 2 * value + 1 or answer[0] in ("RunFailed", "NpuOff"), answer
    assert got["contexts"] > 1 and got["contexts"] - got["closed"] <= 2


def test_interrupt(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:interrupted", xclbin=overlay_file)
    assert got["raised"] == "KeyboardInterrupt" and got["seconds"] < 0.35
    assert got["after"] == 15.0 and got["contexts"] == 1


def test_signal_with_handler(sandbox: Sandbox, overlay_file: str) -> None:
    assert sandbox.call("faults:handled_signal", xclbin=overlay_file) == {"value": GOOD, "seen": 1}


def test_dropping_a_hanging_run_does_not_abort(sandbox: Sandbox, overlay_file: str) -> None:
    assert sandbox.call("faults:dropped_mid_run", xclbin=overlay_file) == {"kept": 1}


def test_fork(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:forked", xclbin=overlay_file)
    assert "OtherProcess" in got["child"] and "spawn" in got["child"]
    assert got["status"] == 0 and got["after"] == 19.0
    closers = {line.split()[0] for line in sandbox.log.read_text().splitlines() if "DESTROY" in line}
    assert len(closers) == 1, "the child closed its parent's context"


def test_copies(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:copies", xclbin=overlay_file)
    assert got["copy"] == 9.0
    assert got["pickle"][0] == "TypeError" and "state_dict" in got["pickle"][1]


def test_models_and_shapes_share_a_context(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:shares_one_context", xclbin=overlay_file)
    assert got == {"found": [3.0, 7.0, 5.0, 9.0], "same": True, "contexts": 1}


def test_processes_share_the_chip(sandbox: Sandbox, overlay_file: str) -> None:
    """Three processes, two contexts: the third waits for the first that ends."""
    knobs = {"CONTEXT_LIMIT": 2}
    started = [
        sandbox.start("faults:hold", knobs=knobs, xclbin=overlay_file, seconds=1.0, value=float(n))
        for n in range(3)
    ]
    results = [sandbox.finish(process) for process in started]
    for result in results:
        assert result.status == 0, result.stderr
        assert result.value["right"] and result.value["runs"] > 0
    refused = [line for line in sandbox.log.read_text().splitlines() if "error=22" in line]
    assert refused, "nobody had to wait: the test tested nothing"


def test_waiting_costs_little(sandbox: Sandbox, overlay_file: str) -> None:
    got = sandbox.call("faults:slow_and_quick_waits", xclbin=overlay_file)
    assert got["50000"]["cpu_ms"] < 5.0
    assert got["50000"]["wall_ms"] < 50 + 15
