"""The emulator: a region's ops on the CPU with the NPU's roundings; the default where there is no NPU."""

from __future__ import annotations

from lowering.ops import Region
from torch_xdna.devices.emulator.executable import EmulatorExecutable

__all__ = ["EmulatorDevice", "EmulatorExecutable"]


class EmulatorDevice:
    """Takes every region, on every machine that runs torch."""

    name = "emulator"

    def prepare(self, region: Region) -> EmulatorExecutable:
        return EmulatorExecutable(region)
