"""The devices by name. Nothing is imported before it is asked for: `npu` and `array` work without torch."""

from __future__ import annotations

import functools
import importlib
import warnings
from types import ModuleType

from torch_xdna.devices.base import Device, Executable, Stats
from torch_xdna.errors import DeviceError

__all__ = ["DEVICES", "Device", "Executable", "Stats", "names", "select", "unusable"]

# name -> (module, class, the options that its constructor takes, one line for people). A new device is a line here.
DEVICES: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "npu": (
        "torch_xdna.devices.npu.device",
        "NpuDevice",
        ("columns", "overlay", "iterated", "split"),
        "the NPU, through XRT",
    ),
    "emulator": (
        "torch_xdna.devices.emulator",
        "EmulatorDevice",
        (),
        "the same ops and roundings on the CPU",
    ),
    "array": (
        "torch_xdna.devices.array.device",
        "ArrayDevice",
        ("columns", "overlay", "iterated", "split"),
        "a simulator of the array that executes the NPU's instruction words; slow",
    ),
}


def names() -> tuple[str, ...]:
    """What the option `device` may be: `auto`, and each device of the table."""
    return ("auto", *DEVICES)


def __getattr__(name: str) -> ModuleType:
    """`torch_xdna.devices.npu` without an import of its own, as `torch_xdna.devices.npu.reset()` is typed."""
    if name in DEVICES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def select(
    name: str = "auto",
    *,
    columns: int = 4,
    overlay: str | None = None,
    iterated: bool = True,
    split: str | None = None,
) -> Device:
    """The device of that name; `auto` is the NPU if it is usable, else the emulator with one warning why.

    columns: how many columns of the array to use (1, 2 or 4). overlay: path of an xclbin, None for the
    installed one. iterated: whether descriptors may iterate; split: into which dispatches (`lowering.lower`).
    Raises DeviceError, with a remedy, if the device is not usable here.
    """
    if name == "auto":
        reason = unusable("npu", columns=columns, overlay=overlay, iterated=iterated, split=split)
        if reason is None:
            return _make("npu", columns, overlay, iterated, split)
        _warn_once(reason)
        return _make("emulator", columns, overlay, iterated, split)
    return _make(name, columns, overlay, iterated, split)


def unusable(
    name: str,
    *,
    columns: int = 4,
    overlay: str | None = None,
    iterated: bool = True,
    split: str | None = None,
) -> str | None:
    """Why the device can't be used here, in one sentence, or None if it can. `name`, columns, overlay, iterated and
    split: as for `select`."""
    try:
        _make(name, columns, overlay, iterated, split)
    except DeviceError as error:
        return str(error)
    return None


def describe(name: str) -> str:
    """One line about a device, for people."""
    return DEVICES[name][3]


@functools.cache
def _make(name: str, columns: int, overlay: str | None, iterated: bool, split: str | None) -> Device:
    if name not in DEVICES:
        raise DeviceError(f"there is no device '{name}'; the devices are {', '.join(names())}")
    module, cls, takes, _ = DEVICES[name]
    options = {"columns": columns, "overlay": overlay, "iterated": iterated, "split": split}
    try:
        make = getattr(importlib.import_module(module), cls)
    except ImportError as error:
        raise DeviceError(f"device '{name}' can't be loaded: {error}; install what is missing") from error
    return make(**{key: options[key] for key in takes})


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(f"xdna: device 'auto' uses the emulator, because {reason}", stacklevel=3)
