"""How the host's bytes get past the CPU's caches: XRT's `bo.sync`, or the same flush with a faster instruction.

The NPU does not see the CPU's caches, so what the host wrote must be written back and what it will read must be
dropped. XRT's plug-in does both in the same way, in this process: a fence, one `clflush` per cache line, a fence
(amd/xdna-driver, src/shim/buffer.cpp, `buffer::sync`; 2.25 as disassembled, and main of 21 August 2026). Each
clflush waits for the one before. `clflushopt` flushes a line just so, without the waiting, and is what the kernel's
own drivers use: 0.05 to 0.07 ms per MB instead of 1.7 to 2.4 on the Xeon where `pytest -s -k host_cost tests/npu`
was run.

XRT does it wherever ours would not be the same or is not to be had: a processor without clflushopt, an `xrt.ini`
that leaves syncs to the kernel, no C++ compiler; and where TORCH_XDNA_SYNC=xrt asks for it.
"""

from __future__ import annotations

import configparser
import ctypes
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torch_xdna.devices.npu.errors import NpuUnavailable
from torch_xdna.kernels_xdna1 import host_compiler

VARIABLE = "TORCH_XDNA_SYNC"
FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-Wall")


@dataclass(frozen=True)
class Flush:
    """`ranges(address, table)` flushes; None leaves it to XRT, and `reason` says why."""

    ranges: Callable[[int, np.ndarray], None] | None
    reason: str


@functools.cache
def chosen() -> Flush:
    """How this process syncs. Raises NpuUnavailable if TORCH_XDNA_SYNC holds something else."""
    wanted = os.environ.get(VARIABLE) or "flush"
    if wanted not in ("flush", "xrt"):
        raise NpuUnavailable(f"{VARIABLE} is {wanted!r}; valid values: flush, xrt")
    if wanted == "xrt":
        return Flush(None, f"{VARIABLE}=xrt")
    if "clflushopt" not in host_compiler.cpu().split():
        return Flush(None, "this processor has no clflushopt")
    if ini := _leaves_it_to_the_kernel():
        return Flush(None, f"{ini} sets force_driver_sync")
    try:
        return Flush(_compiled(), "clflushopt")
    except (host_compiler.CompilerError, OSError) as error:
        return Flush(None, f"the flush can't be compiled: {error}")


def _compiled() -> Callable[[int, np.ndarray], None]:
    source = Path(__file__).with_suffix(".cc").read_text()
    function = ctypes.CDLL(str(host_compiler.shared_object("flush", source, FLAGS))).flush
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]

    def ranges(address: int, table: np.ndarray) -> None:
        """`table`: int64 (n, 2), byte offset from `address` and byte size."""
        function(address, table.ctypes.data, len(table))

    return ranges


def _leaves_it_to_the_kernel() -> Path | None:
    """The xrt.ini that XRT reads (named by a variable, else beside the program, else here), if it says so."""
    named = os.environ.get("XRT_INI_PATH")
    places = (
        [Path(named)]
        if named
        else [Path(sys.executable).resolve().parent / "xrt.ini", Path("xrt.ini").resolve()]
    )
    ini = next((path for path in places if path.is_file()), None)
    if ini is None:
        return None
    settings = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    try:
        settings.read_string(ini.read_text())
    except (configparser.Error, OSError, UnicodeDecodeError):
        return ini  # XRT may read it otherwise than we do
    sections = [settings[name] for name in settings.sections() if name.lower() == "debug"]
    asked = any(
        (section.get("force_driver_sync") or "false").strip().lower() != "false" for section in sections
    )
    return ini if asked else None
