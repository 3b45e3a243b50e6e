"""New memory of the emulator: on the CPU and of a stated dtype, whatever the process takes by default.

(`torch.set_default_dtype`, `torch.set_default_device` and `with torch.device(...)` act on any call that says neither.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Uninitialised."""
    return torch.empty(tuple(shape), dtype=dtype, device="cpu")


def zeros(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """All zero."""
    return torch.zeros(tuple(shape), dtype=dtype, device="cpu")
