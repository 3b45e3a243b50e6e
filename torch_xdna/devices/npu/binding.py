"""Finds pyxrt, XRT's Python module: in this environment, else where distributions put it.

A virtual environment does not see the system's packages, so the module is also loaded by its path; the file
must be built for this interpreter (its name says for which).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch_xdna.devices.npu.errors import NpuUnavailable

# Debian and Ubuntu; XRT's own packages; Arch
FOLDERS = ("/usr/lib/python3/dist-packages", "/opt/xilinx/xrt/python", "/usr/lib/python3/site-packages")
INSTALL = "install python3-xrt: on Debian 13 `sudo apt install -t trixie-backports python3-xrt libxrt-npu2`"


@dataclass(frozen=True)
class Found:
    """Where pyxrt is, or why it can't be used. Exactly one of `path` and `problem` is set."""

    path: Path | None
    problem: str | None


@functools.cache
def load() -> ModuleType:
    """pyxrt. Raises NpuUnavailable with what is missing."""
    if "pyxrt" in sys.modules:
        return sys.modules["pyxrt"]
    found = find()
    if found.path is None:
        raise NpuUnavailable(found.problem or "")
    try:
        spec = importlib.util.spec_from_file_location("pyxrt", found.path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{found.path} is no Python module")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        raise NpuUnavailable(f"pyxrt at {found.path} does not load: {error}; {INSTALL}") from error
    if not hasattr(module, "hw_context"):
        raise NpuUnavailable(f"{found.path} is not XRT's pyxrt (it has no hw_context); {INSTALL}")
    sys.modules["pyxrt"] = module
    return module


def find(folders: Sequence[str | Path] | None = None, tag: str | None = None) -> Found:
    """Look for a pyxrt built for this interpreter. `folders`, `tag` (like cpython-313-...) are for tests."""
    if folders is None:
        folders = [p for p in sys.path if p] + list(FOLDERS)
    tag = tag or str(sysconfig.get_config_var("SOABI"))
    others: list[Path] = []
    tracer = False
    for folder in map(Path, folders):
        for path in sorted(folder.glob("pyxrt*.so")):
            if path.name in (f"pyxrt.{tag}.so", "pyxrt.abi3.so", "pyxrt.so"):
                return Found(path, None)
            others.append(path)
        # the X-ray tracer "xrt" is what `apt install python3-xrt` gives without backports, and `pip install
        # xrt`
        tracer = tracer or (folder / "xrt" / "backends" / "raycing").is_dir()
    if others:
        match = re.search(r"cpython-(\d)(\d+)", others[0].name)
        theirs = f"{match[1]}.{match[2]}" if match else "another version"
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        return Found(
            None,
            f"pyxrt at {others[0]} is built for Python {theirs}, this is Python {ours}; make the "
            "environment with "
            f"python{theirs}, or build XRT for this one",
        )
    if tracer:
        return Found(
            None,
            "the installed package python3-xrt is an X-ray tracer of the same name, not AMD's XRT; "
            + INSTALL,
        )
    return Found(None, f"pyxrt, XRT's Python module, is not installed; {INSTALL}")
