"""The profile of a program: a record per op, totals, both as JSON. Seconds are modelled unless named host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch_xdna.lowering.limits import CORE_ROWS
from torch_xdna.lowering.time.costs import Costs
from torch_xdna.lowering.time.kernels import kernel_cycles

PEAK_FLOP = 256  # bf16 operations per cycle and core
PRODUCT_SHARE = 64**3 / kernel_cycles("gemm_step") / 128  # of peak, our product of 64 x 64 x 64, modelled
READ_GBS = Costs.read_gbs
_LAYER = re.compile(r"^(?:.*\.)?layers\.(\d+)\.(.*)$")


@dataclass(frozen=True)
class OpProfile:
    """One op of a program. `bounds`: modelled seconds that each resource alone would need; the largest is
    `bound`.

    `start`: modelled seconds since the program's begin. `busy`: share of the time in which the cores ran
    kernels (simulator only). `host_seconds`: measured on this machine's device, where it was asked for.
    """

    name: str
    kind: str
    shape: str
    start: float
    seconds: float
    macs: int = 0
    bytes: int = 0
    bounds: dict[str, float] = field(default_factory=dict)
    busy: float | None = None
    host_seconds: float | None = None

    @property
    def layer(self) -> str:
        """`layer 3`, or `other` for what stands before and after the layers."""
        found = _LAYER.match(self.name)
        return f"layer {found.group(1)}" if found else "other"

    @property
    def role(self) -> str:
        """The name without its layer: what the same op is called in every layer."""
        found = _LAYER.match(self.name)
        return found.group(2) if found else self.name

    @property
    def bound(self) -> str:
        return max(self.bounds, key=lambda name: self.bounds[name]) if self.bounds else ""


@dataclass(frozen=True)
class Profile:
    """A program's modelled time on the NPU. `source`: `array simulator` (executed) or `closed form`."""

    name: str
    ops: tuple[OpProfile, ...]
    seconds: float
    clock_ghz: float
    columns: int
    source: str
    audio_seconds: float | None = None
    context: int | None = None
    dispatches: int = 1
    dispatch_seconds: float = 0.0
    overlay_changes: int = 0
    instruction_bytes: int | None = None
    weight_bytes: int | None = None
    closed_form_seconds: float | None = None
    better_gemm_seconds: float | None = None
    stock_kernels_seconds: float | None = None  # with the kernels of before, at the rates assumed then
    host_device: str | None = None
    host_seconds: float | None = None
    host_counts: dict[str, float] = field(default_factory=dict)  # per call: what the device was asked for
    core_seconds: dict[str, float] = field(default_factory=dict)  # of a mean core, by work (simulator only)
    trace: Any = field(default=None, repr=False, compare=False)

    @property
    def real_time_factor(self) -> float | None:
        return self.audio_seconds / self.seconds if self.audio_seconds else None

    @property
    def peak_gflops(self) -> float:
        return PEAK_FLOP * CORE_ROWS * self.columns * self.clock_ghz

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.ops)

    @property
    def bytes(self) -> int:
        return sum(op.bytes for op in self.ops)

    def efficiency(self, macs: int | None = None, seconds: float | None = None) -> float:
        """Share of the array's bf16 peak that useful products reach; of the whole program by default."""
        work = self.macs if macs is None else macs
        return 2 * work / ((self.seconds if seconds is None else seconds) * self.peak_gflops * 1e9)

    def by(self, key: str) -> dict[str, list[OpProfile]]:
        """Ops grouped by an attribute (`layer`, `role`, `kind`, `bound`), in order of appearance."""
        groups: dict[str, list[OpProfile]] = {}
        for op in self.ops:
            groups.setdefault(getattr(op, key), []).append(op)
        return groups

    def as_dict(self) -> dict[str, Any]:
        """One JSON object; everything in it is modelled except the fields that start with `host`."""
        total = self.seconds
        return {
            "modelled": True,
            "name": self.name,
            "seconds": total,
            "source": self.source,
            "inputs": {"context": self.context, "clock_ghz": self.clock_ghz, "columns": self.columns},
            "real_time_factor": self.real_time_factor,
            "efficiency_of_peak": self.efficiency(),
            "dispatches": self.dispatches,
            "dispatch_seconds": self.dispatch_seconds,
            "overlay_changes": self.overlay_changes,
            "instruction_bytes": self.instruction_bytes,
            "weight_bytes": self.weight_bytes,
            "bytes_moved": self.bytes,
            "closed_form_seconds": self.closed_form_seconds,
            "better_gemm_seconds": self.better_gemm_seconds,
            "stock_kernels_seconds": self.stock_kernels_seconds,
            "host_device": self.host_device,
            "host_seconds": self.host_seconds,
            "host_per_call": self.host_counts,
            "core_seconds": self.core_seconds,
            "layers": {name: sum(op.seconds for op in ops) for name, ops in self.by("layer").items()},
            "ops": [
                {
                    "name": op.name, "layer": op.layer, "kind": op.kind, "shape": op.shape, "start": op.start,
                    "seconds": op.seconds, "share": op.seconds / total, "bound": op.bound,
                    "bounds": op.bounds, "efficiency_of_peak": self.efficiency(op.macs, op.seconds),
                    "bytes": op.bytes, "core_busy": op.busy, "host_seconds": op.host_seconds,
                }
                for op in self.ops
            ],
        }  # fmt: skip


def median_of(values: Sequence[float | None]) -> float | None:
    """The median of what is present; None if nothing is."""
    present = sorted(value for value in values if value is not None)
    return present[len(present) // 2] if present else None
