"""From the ops of a region to packed weights, block transfers and instruction words. No torch here.

    program = lowering.lower(region, columns=4)

Stages, one folder each, in the order in which a region passes them (`lowering.pipeline` calls them):

| folder | from | to |
| --- | --- | --- |
| `steps` | ops over values (`ops`) | steps over `buffers` of blocks, a place for each |
| `streams` | a step | header words, streams per column and path that fit descriptors; where dispatches are cut |
| `commands` | streams of a dispatch's steps | one list of commands without deadlock or hazard, then words; and back |

`program` is the result and `listing` prints it. `host_data` packs what the host gives and takes, `limits` knows every
limit of the hardware, `whisper` makes the regions of Whisper's encoders. `overlay` describes the array that executes
programs, `time` says how long that takes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_xdna.lowering.pipeline import lower as lower
    from torch_xdna.lowering.program import Program as Program

_EXPORTS = {"lower": "torch_xdna.lowering.pipeline", "Program": "torch_xdna.lowering.program"}


def __getattr__(name: str) -> Any:
    """Load what is asked for only then: `import lowering` stays light and needs no numpy."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'lowering' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
