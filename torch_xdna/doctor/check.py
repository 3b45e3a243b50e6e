"""What a check gives back, and what checks know of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch_xdna.devices.npu.machine import System
from torch_xdna.doctor.driver import DriverFacts

# PCI device ids of AMD's first generation of NPUs, from the driver's table
XDNA1 = {"0x1502": "Phoenix or Hawk Point"}


@dataclass(frozen=True)
class Check:
    """One line. `status`: ok; warning (works, but); problem (has to be solved); unknown (an earlier problem
    is in the way). `remedy` is what to do about a warning or a problem, empty otherwise."""

    name: str
    status: str
    says: str
    remedy: str = ""


@dataclass
class Findings:
    """The machine and the checks so far."""

    system: System
    columns: int
    overlay: str | None
    ask_driver: Callable[[str], DriverFacts]
    checks: list[Check] = field(default_factory=list)

    def passed(self, name: str) -> bool:
        return any(c.name == name and c.status in ("ok", "warning") for c in self.checks)

    @cached_property
    def pci(self) -> Path | None:
        """The NPU's folder in /sys: the first supported chip."""
        found = [path for path, device in npus(self.system) if device in XDNA1]
        return found[0] if found else None

    @cached_property
    def node(self) -> str | None:
        """The device node that belongs to the chip, `/dev/accel/accelN`."""
        names = sorted(p.name for p in (self.pci / "accel").glob("accel*")) if self.pci else []
        return f"/dev/accel/{names[0]}" if names else None

    @cached_property
    def driver(self) -> DriverFacts:
        """What the driver answers; empty if the node can't be opened."""
        return self.ask_driver(str(self.system.path(self.node))) if self.node else DriverFacts()


def npus(system: System) -> list[tuple[Path, str]]:
    """AMD's signal processing accelerators on the PCI bus: (folder in /sys, device id)."""
    out = []
    for folder in system.glob("/sys/bus/pci/devices/*"):
        vendor, device = ((folder / name) for name in ("vendor", "device"))
        if vendor.is_file() and vendor.read_text().strip() == "0x1022":
            out.append((folder, device.read_text().strip()))
    return out


def needs(findings: Findings, name: str, *earlier: str) -> Check | None:
    """An `unknown` check if one of the earlier ones did not pass."""
    missing = [e for e in earlier if not findings.passed(e)]
    return Check(name, "unknown", f"can't be told before this is solved: {missing[0]}") if missing else None
