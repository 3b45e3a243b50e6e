"""How syncs are done: when by ours, when by XRT, and that ours takes lines out of the caches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from torch_xdna.devices import npu
from torch_xdna.devices.npu import flush
from torch_xdna.devices.npu.buffers import Ranges
from torch_xdna.errors import DeviceError
from torch_xdna.kernels_xdna1 import host_compiler


@pytest.fixture(autouse=True)
def not_chosen_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv(flush.VARIABLE, raising=False)
    monkeypatch.delenv("XRT_INI_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    flush.chosen.cache_clear()
    yield
    flush.chosen.cache_clear()


@pytest.fixture
def ours() -> Callable[[int, np.ndarray], None]:
    found = flush.chosen()
    if found.ranges is None:
        pytest.skip(f"XRT syncs here: {found.reason}")
    return found.ranges


def without_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> tuple[str, str]:
        raise host_compiler.CompilerError("no C++20 compiler is here")

    monkeypatch.setattr(host_compiler, "compiler", missing)


def other_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_compiler, "cpu", lambda: "flags : fpu clflush sse2")


def asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(flush.VARIABLE, "xrt")


def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_XDNA_CACHE", "/dev/null/cache")


def ini_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "xrt.ini").write_text("; ours\n[Runtime]\nverbosity = 4\n[DEBUG]\nForce_Driver_Sync = true\n")


def ini_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.ini").write_text("[Debug]\nforce_driver_sync=true\n")
    monkeypatch.setenv("XRT_INI_PATH", str(tmp_path / "other.ini"))


def ini_unreadable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "xrt.ini").write_text("force_driver_sync = true, but of what?\n")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (asked_for, "TORCH_XDNA_SYNC=xrt"),
        (without_compiler, "no C++20 compiler"),
        (no_cache, "can't be compiled"),
        (other_processor, "no clflushopt"),
        (ini_here, "xrt.ini sets force_driver_sync"),
        (ini_named, "other.ini sets force_driver_sync"),
        (ini_unreadable, "xrt.ini"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_xrt_syncs_where_ours_would_not_be_the_same(
    state: Callable, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_compiler, "cpu", lambda: "flags : fpu clflush clflushopt")
    state(monkeypatch, tmp_path)
    found = flush.chosen()
    assert found.ranges is None and reason in found.reason


def test_another_ini_changes_nothing(ours: Callable, tmp_path: Path) -> None:
    (tmp_path / "xrt.ini").write_text("[Debug]\nforce_driver_sync = false\n[Runtime]\nverbosity = 4\n")
    flush.chosen.cache_clear()
    assert flush.chosen().ranges is not None


def test_a_wrong_setting_is_refused(scripted: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(flush.VARIABLE, "yes")
    with pytest.raises(DeviceError, match="TORCH_XDNA_SYNC is 'yes'; valid values: flush, xrt"):
        npu.runtime()


@pytest.mark.parametrize("sync", ["flush", "xrt"])
def test_runs_give_the_same(scripted: object, monkeypatch: pytest.MonkeyPatch, sync: str) -> None:
    import torch
    from block import Block, clips, compiled

    monkeypatch.setenv(flush.VARIABLE, sync)
    calls = []
    bo_sync = sys.modules["pyxrt"].bo.sync
    monkeypatch.setattr(sys.modules["pyxrt"].bo, "sync", lambda *args: calls.append(args) or bo_sync(*args))
    model = Block().eval()
    with torch.no_grad():
        assert torch.allclose(compiled(model, columns=4)(clips()), model(clips()), atol=0.05)
    from_device = [direction for _, direction, *_ in calls if direction == 1]
    assert bool(from_device) == (flush.chosen().ranges is None)
    assert calls, "instructions are synced by XRT, once"


def test_bytes_stay(ours: Callable) -> None:
    rng = np.random.default_rng(0)
    memory = rng.integers(0, 256, 1 << 16).astype(np.uint8)
    before = memory.copy()
    for ranges in ([(0, 1 << 16)], [(1, 1), (63, 130), (65535, 1)], []):
        ours(memory.ctypes.data, Ranges(ranges).table)
    assert np.array_equal(memory, before)


def test_flushed_lines_come_from_memory(ours: Callable) -> None:
    """One value of each line, in random order, of a half that was flushed and of one that was not; side by side, the
    least of many."""
    half = 1 << 17  # bytes; both halves fit into any second-level cache that has clflushopt
    memory = np.zeros(2 * half, np.uint8)
    lines = 64 * np.random.default_rng(0).permutation(half // 64)
    table = Ranges([(0, half)]).table

    def seconds(offset: int) -> float:
        started = time.perf_counter()
        memory.take(lines + offset)
        return time.perf_counter() - started

    flushed, left = [], []
    for _ in range(50):
        memory[:] += 1
        seconds(0), seconds(half)
        ours(memory.ctypes.data, table)
        left.append(seconds(half))
        flushed.append(seconds(0))
    print(f"{1e6 * min(left):.0f} us from caches, {1e6 * min(flushed):.0f} us after a flush")
    assert min(flushed) > 1.5 * min(left)


def test_ranges_are_put_in_order() -> None:
    found = Ranges([(128, 64), (0, 64), (64, 10), (150, 100), (300, 0)])
    assert found.parts == [(0, 74), (128, 122)] and found.size == 196
    assert found.table.tolist() == [[0, 74], [128, 122]]
    assert Ranges([]).table.shape == (0, 2) and Ranges([]).size == 0
