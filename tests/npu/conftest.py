"""The sandbox for tests: skipped, with the reason, where its packages can't be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `import sandbox`, in tests and inside the sandbox alike

from sandbox import packages
from sandbox.host import Sandbox

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
