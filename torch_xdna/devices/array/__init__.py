"""A simulator of the array: executes the very instruction words and the very overlay, with the C++ kernels.

No torch, no ml_dtypes: only `torch_xdna.devices.array.device` knows torch.
"""

from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.devices.array.simulator import RunStats, Simulator, execute
from torch_xdna.devices.array.timeline import Trace

__all__ = ["HardwareFault", "RunStats", "Simulator", "Trace", "execute"]
