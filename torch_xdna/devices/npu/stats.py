"""What the runtime counts: per program since it was loaded, per process since the device was opened."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch_xdna.devices.base import Stats


@dataclass
class NpuStats(Stats):
    """`dispatches`: command packets handed to the driver. `overlay_changes`: contexts opened (each configures
    the array). `bytes_to_device`, `bytes_from_device`: synced ranges. `seconds_waited`: wall time between
    submission and end of the runs. `failed_runs`: runs whose output was thrown away."""

    bytes_to_device: int = 0
    bytes_from_device: int = 0
    seconds_waited: float = 0.0
    failed_runs: int = 0

    def __sub__(self, before: NpuStats) -> NpuStats:
        return NpuStats(**{f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)})

    def copy(self) -> NpuStats:
        return self - NpuStats()
