"""The C++ kernels as the simulator calls them: name -> function of addresses and integers."""

from __future__ import annotations

from kernels_xdna1.host import CompilerError, load
from lowering.overlay.description import KERNELS
from torch_xdna.devices.array.core import Kernel
from torch_xdna.errors import DeviceError


def host_kernels() -> dict[str, Kernel]:
    """The kernels, compiled for this CPU at first use. Raises `DeviceError` if there is no compiler."""
    try:
        kernels = load()
    except CompilerError as error:
        raise DeviceError(f"the array simulator has no kernels: {error}") from error
    return {name: getattr(kernels, name) for name in KERNELS}
