"""The sandbox for tests: skipped, with the reason, where its packages can't be had. And pyxrt for tests with
torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for `import sandbox`, in tests and inside the sandbox alike

from borrowed_xrt import BorrowedXrt
from machine import write_overlay
from one_process import INSIDE, OwnXrt
from sandbox import packages
from sandbox.host import FINGERPRINT, Sandbox
from scripted_xrt import ScriptedXrt

from torch_xdna import devices
from torch_xdna.devices.npu import binding, chip, lifetime, overlay

_reason: list[str] = []


@pytest.fixture(scope="session")
def xrt_packages() -> Path:
    """The tree of unpacked packages."""
    if _reason:
        pytest.skip(_reason[0])
    try:
        return packages.tree()
    except packages.Unavailable as unavailable:
        _reason.append(f"no XRT packages: {unavailable}")
        pytest.skip(_reason[0])


@pytest.fixture
def sandbox(xrt_packages: Path, tmp_path: Path) -> Sandbox:
    """A made-up machine with an NPU of its own."""
    return Sandbox(tmp_path)


@pytest.fixture(scope="session")
def overlay_file(xrt_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An xclbin with the kernel name that this version asks for, 4 columns."""
    return str(Sandbox(tmp_path_factory.mktemp("overlay")).xclbin())


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that just started."""
    monkeypatch.setattr(overlay, "fingerprint", lambda *_: FINGERPRINT)
    _forget()
    yield
    _forget()


def _forget() -> None:
    binding.load.cache_clear()
    devices._make.cache_clear()
    devices._warn_once.cache_clear()
    chip._at_exit()
    chip._runtimes.clear()
    lifetime._going.clear()  # runs that hang for ever, of a pyxrt whose process is gone
    torch._dynamo.reset()


@pytest.fixture
def scripted(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ScriptedXrt:
    module = ScriptedXrt()
    monkeypatch.setitem(sys.modules, "pyxrt", module)
    monkeypatch.setenv("TORCH_XDNA_OVERLAY", str(write_overlay(tmp_path / "overlay.xclbin")))
    return module


@pytest.fixture
def borrowed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BorrowedXrt | OwnXrt]:
    """The knobs of the stand-in driver may come as the fixture's parameter."""
    sandbox, overlay_file = map(request.getfixturevalue, ("sandbox", "overlay_file"))
    knobs = getattr(request, "param", {})
    module = OwnXrt(**knobs) if INSIDE else BorrowedXrt(sandbox, **knobs)
    request.getfixturevalue("fresh")
    monkeypatch.setitem(sys.modules, "pyxrt", module.module if INSIDE else module)
    monkeypatch.setenv("TORCH_XDNA_OVERLAY", overlay_file)
    monkeypatch.setitem(chip.runtime.__kwdefaults__, "patience", 0.2)
    monkeypatch.setitem(chip.runtime.__kwdefaults__, "run_timeout", 5.0)
    yield module
    _forget()
    if not INSIDE:
        module.end()


@pytest.fixture(params=["borrowed", "scripted"])
def xrt(request: pytest.FixtureRequest) -> ScriptedXrt | BorrowedXrt:
    """A process that just started, with an NPU."""
    return request.getfixturevalue(request.param)
