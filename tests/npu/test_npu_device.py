"""`torch.compile(..., options={"device": "npu"})`: results, and what a user sees when the NPU fails."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from scripted_xrt import ScriptedXrt
from torch import nn

import torch_xdna
from torch_xdna.devices import _make
from torch_xdna.devices.npu import binding, overlay, process
from torch_xdna.devices.npu import device as npu_device
from torch_xdna.errors import DeviceError, FallbackError

FINGERPRINT = "5a5a5a5a5a5a"


@pytest.fixture
def xrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedXrt]:
    """A process that just started, with an NPU."""
    module = ScriptedXrt()
    monkeypatch.setitem(sys.modules, "pyxrt", module)
    monkeypatch.setattr(overlay, "fingerprint", lambda columns: FINGERPRINT)
    content = bytearray(512)
    content[:8], content[304:312] = b"xclbin2\0", (512).to_bytes(8, "little")
    name = overlay.kernel_name(4).encode()
    content[400 : 400 + len(name)] = name
    (tmp_path / "overlay.xclbin").write_bytes(content)
    monkeypatch.setenv("TORCH_XDNA_OVERLAY", str(tmp_path / "overlay.xclbin"))
    _fresh()
    yield module
    _fresh()


def _fresh() -> None:
    binding.load.cache_clear()
    _make.cache_clear()
    process._runtimes.clear()
    torch._dynamo.reset()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.up, self.down = nn.LayerNorm(128), nn.Linear(128, 256), nn.Linear(256, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def compiled(model: nn.Module, **options: object) -> nn.Module:
    return torch.compile(model, backend="xdna", options={"device": "npu", **options})


def clips(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 70, 128, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_same_bits_as_the_array(xrt: ScriptedXrt) -> None:
    model = Block()
    on_npu = compiled(model)(clips())
    assert xrt.runs == 2, "one dispatch per clip"
    report = torch_xdna.reports()[-1]
    assert report.dispatches == 2 and report.overlay_changes == 0 and report.failures == []
    to_device, from_device = report.bytes_synced
    assert from_device == 2 * 4 * 8192, "per clip 70 x 128 in blocks of 64 x 64"
    assert to_device > from_device
    on_array = torch.compile(model, backend="xdna", options={"device": "array"})(clips())
    assert torch.equal(on_npu, on_array)
    assert not torch.equal(on_npu[0], on_npu[1])
    torch.testing.assert_close(on_npu, model(clips()), rtol=0.02, atol=0.02)


@torch.no_grad()
def test_batches_and_models_share_one_context(xrt: ScriptedXrt) -> None:
    first, second = Block(), Block()
    with torch.no_grad():
        second.up.weight.mul_(2)
    a, b = compiled(first), compiled(second)
    for batch in (1, 3, 2):
        assert torch.equal(a(clips(3))[:batch], a(clips(3)[:batch]))
    assert not torch.equal(a(clips()), b(clips()))
    assert xrt.contexts == 1


@torch.no_grad()
@pytest.mark.parametrize("state", ["ERROR", "ABORT", "TIMEOUT", "GONE"])
def test_one_failure_is_not_seen(xrt: ScriptedXrt, state: str) -> None:
    model = compiled(Block())
    expected = model(clips())
    xrt.script = [state]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(model(clips()), expected)
    assert xrt.contexts == 2


@torch.no_grad()
def test_two_failures_run_eager_and_turn_the_npu_off(xrt: ScriptedXrt) -> None:
    model = Block()
    run = compiled(model)
    run(clips())
    xrt.script = ["ERROR"] * 4
    with pytest.warns(
        UserWarning, match="runs eager on the CPU, because the NPU ended the run in state ERROR"
    ):
        assert torch.equal(run(clips(seed=1)), model(clips(seed=1))), "eager's own numbers"
    runs = xrt.runs
    with pytest.warns(UserWarning, match="the NPU is off for this process"):
        assert torch.equal(run(clips(seed=2)), model(clips(seed=2)))
    assert xrt.runs == runs, "nothing is sent while the NPU is off"
    assert len(torch_xdna.reports()[-1].failures) == 2
    assert "2 failed calls run eager" in torch_xdna.reports()[-1].summary()
    xrt.script = []
    torch_xdna.devices.npu.reset()
    on_npu = run(clips(seed=3))
    assert xrt.runs > runs and not torch.equal(on_npu, model(clips(seed=3)))


@torch.no_grad()
def test_forbidden_fallback_raises(xrt: ScriptedXrt) -> None:
    run = compiled(Block(), fallback="error")
    run(clips())
    xrt.script = ["TIMEOUT"] * 4
    with pytest.raises(FallbackError, match="state TIMEOUT"):
        run(clips())


@torch.no_grad()
def test_eager_twin_with_other_batches(xrt: ScriptedXrt) -> None:
    """Symbolic batch sizes are inputs of the graph; the twin needs them too."""
    model = Block()
    run = compiled(model)
    for batch in (1, 3, 2):
        run(clips(batch))
    xrt.script = ["ERROR"] * 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for batch in (1, 3, 4):
            assert torch.equal(run(clips(batch)), model(clips(batch)))


@torch.no_grad()
def test_copies_and_pickles(xrt: ScriptedXrt) -> None:
    device = npu_device.NpuDevice()
    run = compiled(Block())
    expected = run(clips())
    executable = torch_xdna.reports()[-1].graphs[0].executables[0]
    assert copy.deepcopy(executable) is executable and executable.stats.dispatches == 2
    with pytest.raises(TypeError, match="state_dict"):
        pickle.dumps(executable)
    assert torch.equal(copy.deepcopy(run)(clips()), expected)
    assert device.npu.context().generation == 0


def test_asking_for_an_npu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With this machine's own XRT, if it has one: the error is a sentence with a remedy."""
    monkeypatch.setenv("TORCH_XDNA_OVERLAY", "/nonexistent.xclbin")
    _fresh()
    with pytest.raises(DeviceError, match=r"install|build it with"):
        compiled(Block())(clips())
    _fresh()
