"""A firmware that gives no context after a failed run, and a chip whose contexts are all taken."""

from __future__ import annotations

import pytest
from borrowed_xrt import BorrowedXrt

from torch_xdna.devices.npu import context, runtime
from torch_xdna.devices.npu.errors import RECOVERY, NpuBusy, NpuWedged, translate


@pytest.mark.parametrize("said", ["MGMT_ERT_NOAVAIL", "command failed, status 0x2000003, err=-22"])
def test_the_firmwares_word_for_it(said: str) -> None:
    error = translate(RuntimeError(f"DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed ({said})"), "opening")
    assert isinstance(error, NpuWedged) and not isinstance(error, NpuBusy)
    assert RECOVERY in str(error) and "all hardware contexts" not in str(error)


@pytest.mark.parametrize("users, kind", [([], NpuWedged), ([(7, "other")], NpuBusy)], ids=["alone", "shared"])
def test_no_context_after_a_failed_run(
    borrowed: BorrowedXrt, monkeypatch: pytest.MonkeyPatch, users: list, kind: type
) -> None:
    """The driver's err=-22 is the same: whether a run failed before and who else is there tells."""
    monkeypatch.setattr(context, "_users", lambda: users)
    npu = runtime(None)
    npu.drop(npu.generation, "a run failed")
    borrowed.knob("CONTEXT_LIMIT", 0)
    with pytest.raises(kind, match="modprobe" if kind is NpuWedged else "pid 7"):
        npu.context()


def test_no_context_at_the_start_is_a_busy_chip(
    borrowed: BorrowedXrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_users", lambda: [])
    borrowed.knob("CONTEXT_LIMIT", 0)
    with pytest.raises(NpuBusy):
        runtime(None)
