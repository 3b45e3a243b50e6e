"""From the ops of a region to packed weights, block transfers and instruction words. No torch here.

program = lowering.lower(region, columns=4)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lowering.pipeline import lower as lower
    from lowering.program import Program as Program

_EXPORTS = {"lower": "lowering.pipeline", "Program": "lowering.program"}


def __getattr__(name: str) -> Any:
    """Load what is asked for only then: `import lowering` stays light and needs no numpy."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'lowering' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
