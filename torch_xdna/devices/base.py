"""What a device is to the backend: it prepares a region once, then packs weights and runs clips.

No torch at run time here: the NPU and array devices are also used by interpreters that have numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from torch_xdna.lowering.ops import Region


@dataclass
class Stats:
    """What an executable has done so far, summed over its runs; the report adds these up.

    `dispatches`: commands sent to the device (a batch of n clips is n of them, unless a limit splits a clip).
    `overlay_changes`: how often the array had to be configured with another overlay for a run.
    Both are 0 on the emulator, which has neither.
    """

    dispatches: int = 0
    overlay_changes: int = 0


def counted(stats: Sequence[Stats]) -> dict[str, int]:
    """Sums of `stats`: dispatches, overlay changes and, where a device syncs, bytes; empty if nothing was sent."""
    names = {
        "dispatches": "dispatches",
        "overlay_changes": "overlay_changes",
        "bytes_to_device": "bytes_to_device",
        "bytes_from_device": "bytes_from_device",
    }
    if not any(s.dispatches for s in stats):
        return {}
    return {
        name: sum(getattr(s, counter) for s in stats)
        for name, counter in names.items()
        if all(hasattr(s, counter) for s in stats)
    }


@runtime_checkable
class Executable(Protocol):
    """One region, prepared for one device. It may be called from two threads at once."""

    def pack(self, params: Mapping[str, Tensor]) -> Any:
        """Bring the parameters into the device's form, once for each set of parameter contents.

        `params`: parameter name -> tensor in the shape of `Region.params`, any floating dtype, possibly not
        contiguous. The result is handed to `run`; the backend owns it and drops it when a parameter changes
        or dies, so it must not keep the tensors of `params` themselves alive (a copy or a converted form is
        fine).
        """

    def run(self, inputs: Sequence[Tensor], packed: Any) -> list[Tensor]:
        """Run every clip of a batch. `packed`: what `pack` gave.

        Inputs (batch, rows, cols) in the order of `Region.inputs`, any floating dtype, any strides; outputs
        (batch, rows, cols) in the order of `Region.outputs`, fp32 or bf16 (the backend casts to eager's).
        Inputs are never written to; outputs alias neither inputs nor each other nor those of an earlier run.
        """

    # Optional: `stats: Stats`, and `program` (lowering.Program) where the device lowers the region.


@runtime_checkable
class Device(Protocol):
    """A way to execute regions. Its constructor raises DeviceError, with a remedy, if it is not usable.

    Optional: `variant` (lowering.overlay.variants.Variant), what its overlay can do, if that is not everything.
    """

    name: str

    def prepare(self, region: Region) -> Executable:
        """Lower a region; raises lowering.LoweringError, in one sentence, if the device can't take it.

        The backend then runs that region eager, with this sentence as the reason.
        """

    # Optional: `prepare_length(region: Region, lengths: frozenset[int]) -> Executable`, for regions where the rows of
    # the values `lengths` change from call to call: executables of regions that differ by them take each other's packed
    # weights.
