"""From the ops of a region to packed weights, block transfers and instruction words. No torch here.

    program = lowering.lower(region, columns=4)

Stages, one module each, in the order in which a region passes them (`lowering.pipeline` calls them):

| module | from | to |
| --- | --- | --- |
| `plan` | ops over values (`ops`) | steps over buffers of blocks (`steps`), what fills them (`packing`) |
| `memory` | lifetimes | a place for every buffer |
| `gemm`, `attention`, `rows` | a step | header words and streams per column and path (`work`) |
| `streams` | nested loops over memory | transfers that fit descriptors |
| `split` | steps | the steps of each dispatch: one, unless it takes too long or smaller ones are asked for |
| `schedule` | streams of a dispatch's steps | one list of commands: no deadlock, no hazard |
| `instructions` | commands | words; `decode` goes back, `listing` prints |

`blocks` knows the orders inside a block, `limits` every limit of the hardware, `program` is the result.
`overlay` describes the array that executes it, `time` says how long that takes.
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
