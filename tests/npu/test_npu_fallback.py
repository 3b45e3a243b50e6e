"""Every fault through `torch.compile`, on the real pyxrt: eager's own numbers and a warning that says why, or,
with `fallback="error"`, an error; before the NPU is open, the emulator or an error. Never a crash (the process
that holds pyxrt must end in peace), never wrong numbers."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from block import Block, clips, compiled
from borrowed_xrt import BorrowedXrt

from torch_xdna.devices.npu import binding, chip, runtime
from torch_xdna.errors import DeviceError, FallbackError

for_ever = -1

WHILE_RUNNING = {
    "error": ({"FAIL": for_ever, "FAIL_STATE": 5}, "in state ERROR"),
    "abort": ({"FAIL": for_ever, "FAIL_STATE": 6}, "in state ABORT"),
    "timeout": ({"FAIL": for_ever, "FAIL_STATE": 8}, "in state TIMEOUT"),
    "hang ended by the driver": (
        {"HANG": for_ever, "WATCHDOG_MS": 100, "WATCHDOG_STATE": 8},
        "in state TIMEOUT",
    ),
    "hang for ever": ({"HANG": for_ever}, "no answer from the NPU within 1 s"),
    "output untouched": ({"SKIP": for_ever}, "reported success but left"),
    "can't be submitted": ({"SUBMIT_FAILS": for_ever}, "starting a run"),
    "device vanishes": ({"GONE": 1}, "modprobe"),
    "no context for the retry": ({"FAIL": 1, "CONTEXT_LIMIT": 0}, "no new hardware context"),
}


@pytest.mark.parametrize("fault", WHILE_RUNNING)
@torch.no_grad()
def test_fault_while_running(borrowed: BorrowedXrt, fault: str) -> None:
    knobs, says = WHILE_RUNNING[fault]
    model = Block()
    run, strict = compiled(model), compiled(model, fallback="error")
    good = run(clips(1))
    assert torch.equal(strict(clips(1)), good)
    for npu in chip._runtimes.values():
        npu.run_timeout = 1.0
    for name, value in knobs.items():
        borrowed.knob(name, value)
    with pytest.warns(UserWarning, match="runs eager on the CPU, because") as told:
        assert torch.equal(run(clips(1, seed=1)), model(clips(1, seed=1))), "eager's own numbers"
    (sentence,) = (str(w.message) for w in told)
    assert says in sentence and "\n" not in sentence
    with pytest.raises(FallbackError, match="the NPU is off for this process"):
        strict(clips(1))


@torch.no_grad()
def without_memory(says: str) -> None:
    """Nothing was run: the NPU stays on for smaller models."""
    model = Block()
    with pytest.warns(UserWarning, match=says):
        assert torch.equal(compiled(model)(clips(1)), model(clips(1)))
    with pytest.raises(FallbackError, match=says):
        compiled(model, fallback="error")(clips(1))
    assert all(npu.off is None for npu in chip._runtimes.values())


def test_allocation_failure(borrowed: BorrowedXrt) -> None:
    runtime()
    borrowed.knob("ALLOC_FAILS", for_ever)
    without_memory("allocating .* for the weights: there is no memory for the NPU's buffers")


@pytest.mark.parametrize("borrowed", [{"HEAP_BYTES": 4096}], indirect=True, ids=[""])
def test_instruction_heap_full(borrowed: BorrowedXrt) -> None:
    without_memory("instruction words")


BEFORE_OPENING: list[tuple[dict[str, int], str]] = [
    ({"DENY": 1}, "usermod -aG render"),
    ({"MEMLOCK_BYTES": 8 << 20}, "memlock"),
    ({"CONTEXT_LIMIT": 0}, "no hardware context became free within 0.2 s"),
    ({"GONE": 1}, "torch-xdna doctor"),
]


@pytest.mark.parametrize(
    ("borrowed", "says"),
    BEFORE_OPENING,
    indirect=["borrowed"],
    ids=["permission", "memlock", "contexts", "gone"],
)
def test_fault_before_opening(borrowed: BorrowedXrt, says: str) -> None:
    emulator_instead(says)


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "another version"])
def test_bad_overlay(
    borrowed: BorrowedXrt, damage: str, overlay_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Path(overlay_file).read_bytes()
    bad = tmp_path / "bad.xclbin"
    monkeypatch.setenv("TORCH_XDNA_OVERLAY", str(bad))
    if damage == "truncated":
        bad.write_bytes(good[: len(good) // 2])
    elif damage == "corrupt":
        bad.write_bytes(good[:320] + bytes(480) + good[800:])
    else:
        bad.write_bytes(good.replace(b"xdna1_4c_5a5a5a5a5a5a", b"xdna1_4c_0123456789ab"))
    emulator_instead("torch-xdna build-overlay")


def test_no_device(borrowed: BorrowedXrt) -> None:
    shutil.rmtree(borrowed.sandbox.machine / "sys")
    emulator_instead("XRT sees no NPU")


@pytest.mark.usefixtures("fresh")
def test_pyxrt_for_another_python(xrt_packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real module of Debian's Python 3.13, found by this interpreter."""
    packages = xrt_packages / "usr/lib/python3/dist-packages"
    assert binding.find([packages], "cpython-313-x86_64-linux-gnu").path is not None
    monkeypatch.syspath_prepend(str(packages))
    tag = binding.find([packages])
    if tag.path is not None:
        pytest.skip("this is the Python that the module was built for")
    emulator_instead("is built for Python 3.13, this is Python 3.")


@torch.no_grad()
def emulator_instead(says: str) -> None:
    """`auto` takes the emulator and says once why; `npu`, taken at its word, is a DeviceError that says it."""
    model = Block()
    emulator = torch.compile(model, backend="xdna", options={"device": "emulator"})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for batch in (1, 2):
            auto = torch.compile(model, backend="xdna", options={"device": "auto"})
            assert torch.equal(auto(clips(batch)), emulator(clips(batch)))
    said = [str(w.message) for w in told]
    (sentence,) = [s for s in said if "xdna" in s]  # torch has something to say about Python 3.13.0
    assert "uses the emulator, because" in sentence and says in sentence and "\n" not in sentence
    with pytest.raises(DeviceError, match=says):
        compiled(model)(clips(1))
