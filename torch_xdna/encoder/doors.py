"""The devices as numpy sees them: a region and its parameters in, a function over clips out.

`npu` and `array` run without torch. The emulator is torch's own arithmetic, so it is imported there and nowhere else.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from torch_xdna.errors import DeviceError
from torch_xdna.lowering import lower
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.ops import Region

if TYPE_CHECKING:
    from torch_xdna.devices import Device
    from torch_xdna.lowering.program import Program

NAMES = ("auto", "npu", "emulator", "array")
Clip = Sequence[np.ndarray]  # a region's inputs, (rows, cols) each
Run = Callable[[Sequence[Clip]], list[list[np.ndarray]]]  # per clip the region's outputs, fp32 (rows, cols)


class Door:
    """One device, opened. `name`: npu, emulator or array. May be called from several threads."""

    def __init__(self, name: str, device: Any, columns: int) -> None:
        self.name, self.columns = name, columns
        self._device = device

    def prepare(self, region: Region) -> Callable[[Mapping[str, np.ndarray]], Run]:
        """Give it parameters (fp32, by name) to get the function that runs clips. Raises LoweringError."""
        if self.name == "emulator":
            return _emulator(self._device, region)
        return self.load(lower(region, columns=self.columns))

    def load(self, program: Program) -> Callable[[Mapping[str, np.ndarray]], Run]:
        """The same for a program that is lowered; not for the emulator, which runs regions."""
        loaded = self.loaded(program)
        return lambda params: loaded(program.pack_weights(params))

    def check(self, kinds: Iterable[str]) -> None:
        """Whether the overlay can do these steps. Raises DeviceError."""
        try:
            if self.name != "emulator":
                self._device.variant.check(kinds)
        except LoweringError as error:
            raise DeviceError(f"device '{self.name}' can't take this encoder: {error}") from error

    def loaded(self, program: Program) -> Callable[[np.ndarray], Run]:
        """Give it packed weights (uint8, `Program.pack_weights`)."""
        if self.name == "npu":
            from torch_xdna.devices import npu

            on_npu = npu.load(self._device, program)

            def run_on_npu(packed: np.ndarray) -> Run:
                weights = on_npu.upload(packed)
                return lambda clips: on_npu.run(clips, weights)

            return run_on_npu
        from torch_xdna.devices.array.device import ArrayExecutable

        simulated = ArrayExecutable(self._device, program)
        return lambda packed: lambda clips: [simulated.run_clip(clip, packed) for clip in clips]


def open_door(name: str = "auto", columns: int = 4) -> Door:
    """The device of that name; auto: the NPU if it is usable, else the emulator, with a warning that says why.

    Raises DeviceError, one sentence with a remedy.
    """
    if name not in NAMES:
        raise DeviceError(f"there is no device '{name}'; the devices are {', '.join(NAMES)}")
    if name == "auto":
        try:
            return open_door("npu", columns)
        except DeviceError as error:
            door = open_door("emulator", columns)
            warnings.warn(f"xdna: device 'auto' uses the emulator, because {error}", stacklevel=3)
            return door
    if name == "npu":
        from torch_xdna.devices import npu

        return Door(name, npu.runtime(columns=columns), columns)
    if name == "array":
        from torch_xdna.devices.array.device import ArrayDevice

        return Door(name, ArrayDevice(columns), columns)
    if importlib.util.find_spec("torch") is None:
        raise DeviceError("device 'emulator' computes with torch, which is not installed: pip install torch")
    from torch_xdna.devices import select

    return Door(name, select("emulator"), columns)


def _emulator(device: Device, region: Region) -> Callable[[Mapping[str, np.ndarray]], Run]:
    import torch

    executable = device.prepare(region)

    def pack(params: Mapping[str, np.ndarray]) -> Run:
        packed = executable.pack(_Tensors(params))

        def run(clips: Sequence[Clip]) -> list[list[np.ndarray]]:
            inputs = [torch.from_numpy(np.stack(values)) for values in zip(*clips)]
            outputs = [out.float().numpy() for out in executable.run(inputs, packed)]
            return [list(of_clip) for of_clip in zip(*outputs)]

        return run

    return pack


class _Tensors(Mapping[str, Any]):
    """The arrays as tensors, one at a time."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> Any:
        import torch

        return torch.from_numpy(self._arrays[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)
