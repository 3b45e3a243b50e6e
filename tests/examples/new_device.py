"""A new device: regions in plain numpy. What it must do is in torch_xdna/devices/base.py (Device, Executable); one line
in the table makes it known by name. A device of the package is a folder of torch_xdna/devices/ and the same line.

python tests/examples/new_device.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

import torch_xdna
from torch_xdna.devices import DEVICES
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.evaluate import evaluate
from torch_xdna.lowering.ops import Conv1d, Region


class NumpyDevice:
    name = "numpy"

    def prepare(self, region: Region) -> NumpyExecutable:
        """What a device can't take it refuses here, before anything runs: the region's ops run eager then, and the
        report shows the sentence."""
        for op in region.ops:
            if isinstance(op, Conv1d):
                raise LoweringError(
                    f"conv1d {op.name}: the numpy device has no convolution; leave it on the CPU"
                )
        return NumpyExecutable(region)


class NumpyExecutable:
    def __init__(self, region: Region) -> None:
        self.region = region

    def pack(self, params: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Called once for each content of the weights: here a copy as fp32; a device that has memory uploads."""
        return {name: param.detach().float().numpy().copy() for name, param in params.items()}

    def run(self, inputs: Sequence[Tensor], packed: dict[str, np.ndarray]) -> list[Tensor]:
        """Inputs and results (batch, rows, cols): a batch is a loop over clips."""
        clips = [
            evaluate(self.region, packed, [x[i].detach().float().numpy() for x in inputs])
            for i in range(len(inputs[0]))
        ]
        return [torch.from_numpy(np.stack(results)).float() for results in zip(*clips)]


DEVICES["numpy"] = (__name__, "NumpyDevice", (), "an example: regions in plain numpy")


class Feedforward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(128), nn.Linear(128, 256), nn.Linear(256, 128)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))


def main() -> None:
    torch.manual_seed(0)
    model, x = Feedforward().eval(), torch.randn(2, 30, 128)
    compiled = torch.compile(model, backend="xdna", options={"device": "numpy"})

    def distance() -> float:
        return ((compiled(x) - model(x)).norm() / model(x).norm()).item()

    with torch.no_grad():
        print(f"relative distance from eager: {distance():.5f}")
        model.fc1.weight.mul_(2)  # packed anew before the next result
        print(f"after a change of a weight: {distance():.5f}")
    for report in torch_xdna.reports():
        print(report)


if __name__ == "__main__":
    main()
