"""Names for what a device does, visible in `torch.profiler`; no cost while no profiler runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

PREFIX = "xdna::"


def device_range(name: str) -> AbstractContextManager[object]:
    """A range `xdna::<name>` around a region or an op, if a profiler is active."""
    if torch.autograd._profiler_enabled():
        return torch.profiler.record_function(PREFIX + name)
    return nullcontext()
