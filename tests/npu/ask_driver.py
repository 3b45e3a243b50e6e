"""Inside the sandbox: the doctor's questions to the (stand-in) driver."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from torch_xdna.devices import npu
from torch_xdna.doctor import diagnose
from torch_xdna.doctor.driver import ask

NODE = "/dev/accel/accel0"


def facts(xclbin: str) -> dict[str, Any]:
    checks = diagnose(overlay=xclbin)
    return {**dataclasses.asdict(ask(NODE)), "statuses": {c.name: c.status for c in checks}}


def own_contexts(xclbin: str) -> list[int]:
    """How many contexts this process holds, by the driver's list, before and after opening one."""
    before = list(ask(NODE).contexts or ()).count(os.getpid())
    held = npu.runtime(xclbin)
    after = list(ask(NODE).contexts or ()).count(os.getpid())
    assert held.generation == 0
    return [before, after]
