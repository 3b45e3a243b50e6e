"""Finds out why the NPU can or can't be used: one check after the other, each one line and one remedy.

    checks = diagnose()          # this machine
    usable(checks)               # nothing that an encoder on the NPU needs is missing

Everything is read from plain files below a root (`system.System`), so that every state of a machine has a
test; the driver itself is asked through three harmless ioctls (`driver`), if the device node can be opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch_xdna.devices.npu.machine import System
from torch_xdna.doctor import hardware, software
from torch_xdna.doctor.check import Check, Findings
from torch_xdna.doctor.driver import DriverFacts, ask

# in the order in which a new machine is set up; a check says itself which earlier ones it needs
CHECKS: tuple[Callable[[Findings], Check], ...] = (
    hardware.chip,
    hardware.kernel_driver,
    hardware.device_node,
    hardware.permission,
    hardware.locked_memory,
    hardware.firmware,
    software.xrt,
    software.python_module,
    hardware.free_contexts,
    software.overlay,
    software.compiler,
    software.host_compiler,
    hardware.power,
)


def diagnose(
    system: System | None = None,
    *,
    columns: int = 4,
    overlay: str | None = None,
    ask_driver: Callable[[str], DriverFacts] = ask,
) -> list[Check]:
    """All checks of a machine, in order. `columns`, `overlay`: which overlay is meant, as for the device."""
    findings = Findings(system or System(), columns=columns, overlay=overlay, ask_driver=ask_driver)
    for check in CHECKS:
        findings.checks.append(check(findings))
    return findings.checks


def usable(checks: Sequence[Check]) -> bool:
    """Whether an encoder can run on this NPU now: warnings allow it, problems and what they hide don't."""
    return all(check.status in ("ok", "warning") for check in checks)
