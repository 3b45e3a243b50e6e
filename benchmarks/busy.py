"""How much other work the machine does meanwhile: what makes a time on a shared machine doubtful."""

from __future__ import annotations

import os
import time
from pathlib import Path

QUIET = 0.1  # CPUs; below it, others hardly move a median


def busy_seconds() -> float:
    """CPU seconds of all processes since boot, and those that a hypervisor took (Linux: proc_stat(5))."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def busy_now(seconds: float = 2.0) -> float:
    """CPUs in use over the next seconds, by whoever."""
    began = busy_seconds()
    time.sleep(seconds)
    return (busy_seconds() - began) / seconds


def remark(cpus: float, when: str) -> str:
    """For the head of a table."""
    used = f"ther work used {cpus:.2f} CPUs {when}"
    return f"O{used}." if cpus < QUIET else f"**Provisional: o{used}.**"
