"""One hardware context: the chip configured with the overlay, and the overlay's one kernel.

Sequence that works on this NPU: device, xclbin, `register_xclbin` (`load_xclbin` fails), hw_context, kernel.
Calls on default-constructed handles crash the process, so every handle here is made complete or not at all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_xdna.devices.npu import binding, overlay
from torch_xdna.devices.npu.errors import RECOVERY, NpuBusy, NpuUnavailable, NpuWedged, translate

# kernel arguments: opcode, instruction buffer, number of words, weights, activations
OPCODE = 3
ARGUMENT_OPCODE, ARGUMENT_CODE, ARGUMENT_WORDS, ARGUMENT_WEIGHTS, ARGUMENT_ACTIVATIONS = range(5)


@dataclass
class Context:
    """`generation` counts the contexts of this process: what belongs to an older one is not used again."""

    generation: int
    device: Any
    hardware: Any
    kernel: Any
    code_group: int
    weights_group: int
    activations_group: int

    def close(self) -> None:
        """Release in the order that XRT wants; a run that still refers to the context keeps it open.

        The device handle stays: another thread may be about to allocate with it, and it takes nothing from anybody.
        """
        self.kernel = None
        self.hardware = None


def open_context(
    path: Path, *, columns: int, generation: int, patience: float, let_go: Callable[[], int]
) -> Context:
    """Open the first NPU with the overlay at `path`; wait up to `patience` seconds for a free hardware
    context. `let_go` frees what this process needs no longer, and counts its runs that hold one and never end.

    Raises NpuUnavailable or NpuBusy, with a remedy.
    """
    xrt = binding.load()
    kernel_name = overlay.check(path, columns=columns)
    if not xrt.enumerate_devices():
        raise NpuUnavailable(
            "XRT sees no NPU; `torch-xdna doctor` finds out whether hardware, driver or plug-in miss"
        )
    try:
        device = xrt.device(0)
        _refuse_other_chips(device.get_info(xrt.xrt_info_device.name))
        uuid = device.register_xclbin(xrt.xclbin(str(path)))
        hardware = _wait_for_context(xrt, device, uuid, patience, let_go, after_failure=generation > 0)
        kernel = xrt.kernel(hardware, kernel_name)
        code, weights, activations = (
            kernel.group_id(i) for i in (ARGUMENT_CODE, ARGUMENT_WEIGHTS, ARGUMENT_ACTIVATIONS)
        )
    except (RuntimeError, MemoryError) as error:
        raise translate(error, f"opening the NPU with overlay {path}") from error
    return Context(generation, device, hardware, kernel, code, weights, activations)


def _refuse_other_chips(name: str) -> None:
    """XRT names this chip `RyzenAI-npu1` or by its code name; npu2 and up are XDNA2 with another array."""
    if re.search(r"npu[2-9]|Strix|Krackan|Gorgon", name, re.IGNORECASE):
        raise NpuUnavailable(f"the NPU '{name}' is XDNA2; this package is for XDNA1 (Phoenix, Hawk Point)")


def _wait_for_context(
    xrt: Any, device: Any, uuid: Any, patience: float, let_go: Callable[[], int], *, after_failure: bool
) -> Any:
    """Contexts are few and other programs come and go: try until `patience` seconds are over.

    The driver says the same (err=-22) when the firmware is wedged. `after_failure` (a run of this process has
    failed) and nobody else seen on the device: then that is what it is.
    """
    start, nap = time.monotonic(), 0.05
    while True:
        try:
            return xrt.hw_context(device, uuid)
        except RuntimeError as error:
            meaning = translate(error, "opening a hardware context")
            stuck, waited = let_go(), time.monotonic() - start
            if not isinstance(meaning, NpuBusy):
                raise meaning from error
            if waited + nap > patience:
                if after_failure and not stuck and not _users():
                    raise NpuWedged(
                        f"no new hardware context within {patience:g} s after a failed run, and no other program is "
                        f"seen on the NPU: the run wedged its firmware; {RECOVERY}"
                    ) from error
                raise NpuBusy(
                    f"no hardware context became free within {patience:g} s (the chip has six, on some "
                    "drivers four); "
                    f"{_holders(stuck)}"
                ) from error
        time.sleep(nap)
        nap = min(nap * 1.5, 0.5)


def _users() -> list[tuple[int, str]]:
    """Other processes that have the device open, as far as this user may see."""
    from torch_xdna.devices.npu.machine import System, device_users

    return device_users(System())


def _holders(stuck: int) -> str:
    if stuck:
        return f"{stuck} runs of this process never ended and may hold them: start it anew"
    users = _users()
    if not users:
        return (
            "processes of other users or containers hold them: `sudo fuser -v /dev/accel/accel*` names them"
        )
    return "they could be held by " + ", ".join(f"{name} (pid {pid})" for pid, name in users)
