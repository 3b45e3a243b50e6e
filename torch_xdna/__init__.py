"""Whisper encoders on AMD's first-generation Ryzen AI NPU (XDNA1), from plain PyTorch.

`torch.compile(module, backend="xdna")` needs no import of this package. What it offers beyond that:

    torch_xdna.explain(fn_or_module, *args)     where each op would run, and why; needs no device
    torch_xdna.reports()                        the same for everything compiled in this process
    torch_xdna.capture_regions(fn, *args)       the regions that a device would be given
    torch_xdna.export(encoder, "base.xdna")     an encoder as one file; torch_xdna.load runs it with numpy alone
    torch_xdna.Settings                         every option with its default
    torch_xdna.devices.npu.reset()              the NPU is tried again after failures turned it off
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_xdna.explanation import capture_regions, explain
    from torch_xdna.exported.load import load
    from torch_xdna.exported.write import export
    from torch_xdna.report import Report, reports
    from torch_xdna.settings import Settings

__all__ = ["Report", "Settings", "capture_regions", "explain", "export", "load", "reports"]

_HOME = {
    "explain": "torch_xdna.explanation",
    "capture_regions": "torch_xdna.explanation",
    "reports": "torch_xdna.report",
    "Report": "torch_xdna.report",
    "Settings": "torch_xdna.settings",
    "export": "torch_xdna.exported.write",
    "load": "torch_xdna.exported.load",
}


def __getattr__(name: str) -> Any:
    # Imported when used: the NPU and array devices also work where torch is not installed.
    if name == "devices":
        return importlib.import_module("torch_xdna.devices")
    if name not in _HOME:
        raise AttributeError(f"module 'torch_xdna' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
