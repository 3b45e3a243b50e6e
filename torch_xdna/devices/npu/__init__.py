"""The NPU through XRT: one hardware context per process, programs that are only data, failures that end in a
sentence.

    npu = runtime(overlay=None, columns=4)       # opens the device; NpuUnavailable says what is missing
    program = load(npu, lowered)                 # a lowering.Program: its instruction words
    weights = program.upload(packed)             # once per set of weights
    outputs = program.run([[mel]], weights)      # per clip a list of fp32 matrices

No torch here except in `device` (the backend's door), so everything else runs under an interpreter with numpy
only.

The files, from the bottom: `binding` finds pyxrt, `errors` turns XRT's messages into sentences, `overlay`
finds and checks the xclbin, `context` opens the chip, `buffers` is memory and `flush` gets their bytes past
the CPU's caches, `wait` is a timed wait that leaves other threads alone, `lifetime` keeps XRT's objects from
dying at the wrong moment, `chip` is what a process shares; `weights` are on the device once, `slots` are what
a run needs, `marks` show whether it wrote its results, `loaded_program` runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_xdna.devices.npu.chip import Npu
    from torch_xdna.devices.npu.loaded_program import NpuProgram

__all__ = ["load", "reset", "runtime"]


def runtime(overlay: str | None = None, *, columns: int = 4, **options: Any) -> Npu:
    """This process's NPU, opened with an overlay: `overlay` is the path of an xclbin, None for the built one for
    `columns` columns; further `options` are for tests. Raises NpuError, one sentence with a remedy."""
    from torch_xdna.devices.npu import chip

    return chip.runtime(overlay, columns=columns, **options)


def load(npu: Npu, program: Any) -> NpuProgram:
    """Make `program`, a lowering.Program, runnable on `npu`; nothing is sent before its first run. Raises
    lowering.errors.LackingError if the overlay was built without an op of it."""
    from torch_xdna.devices.npu import loaded_program

    return loaded_program.load(npu, program)


def reset() -> None:
    """Turn the NPU on again after failures turned it off for this process; the next run opens it anew."""
    from torch_xdna.devices.npu import chip

    chip.reset()
