"""Names for what a device does, visible in `torch.profiler`; next to no cost while no profiler runs.

A region's range is on the thread that calls it. A device's own threads show their ranges only to a profiler
that watches all threads: `torch._C._profiler._ExperimentalConfig(profile_all_threads=True)`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.autograd import profiler

PREFIX = "xdna::"
_NOTHING: AbstractContextManager[object] = nullcontext()


def device_range(name: str) -> AbstractContextManager[object]:
    """A range `xdna::<name>` around a region or an op while a profiler is active in this process."""
    # The flag of the process, not of the thread: a device's threads have no profiler state of their own.
    if not profiler._is_profiler_enabled:
        return _NOTHING
    return torch.profiler.record_function(PREFIX + name)
