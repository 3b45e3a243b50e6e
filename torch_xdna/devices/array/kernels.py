"""The C++ kernels as the simulator calls them: name -> function of addresses and integers."""

from __future__ import annotations

from torch_xdna.devices.array.context import Kernel
from torch_xdna.errors import DeviceError
from torch_xdna.kernels_xdna1.host import load
from torch_xdna.kernels_xdna1.host_compiler import CompilerError, cache_directory
from torch_xdna.lowering.overlay.description import KERNELS


def host_kernels(defines: tuple[str, ...] = ()) -> dict[str, Kernel]:
    """The kernels, compiled for this CPU at first use with an overlay's macros (`defines`). Raises `DeviceError` if
    there is no compiler, or no folder to keep them in."""
    try:
        kernels = load(defines=defines)
    except CompilerError as error:
        raise DeviceError(f"the array simulator has no kernels: {error}") from error
    except OSError as error:
        raise DeviceError(
            f"the array simulator can't keep its compiled kernels in {cache_directory()}: {error.strerror}; point "
            "TORCH_XDNA_CACHE at a folder that can be written"
        ) from error
    return {name: getattr(kernels, name) for name in KERNELS}
