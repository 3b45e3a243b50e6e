"""A new op in three steps: relu, from ATen's graph to the emulator. CONTRIBUTING.md says where each step stands in the
package, and what the array and the NPU want beside it: a kernel. Until they have one they refuse the op in a sentence.

python tests/examples/new_op.py
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import fx, nn

import torch_xdna
from torch_xdna.devices.emulator.chunk import ROW_STEPS, on_rows
from torch_xdna.lowering.ops import OPERAND, Op
from torch_xdna.matching import MATCHERS, Match, MatchState, Refusal
from torch_xdna.matching.rows import module_path


# 1. What it computes, for every device: a class beside the others of lowering/ops.py.
@dataclass(frozen=True)
class Relu(Op):
    """out = max(x, 0): no rounding, bf16 as it came."""

    x: int = field(metadata=OPERAND)


# 2. Which nodes of the graph it is: a function beside those of torch_xdna/matching/rows.py, a line in the table.
def relu(state: MatchState, node: fx.Node) -> Match | Refusal:
    """aten.relu of a floating-point tensor of any layout."""
    found = state.matrix_of(node.all_input_nodes[0])
    if isinstance(found, Refusal):
        return found
    matrix, dims = found
    name = module_path(node)
    return state.emit(
        node, lambda out: Relu(out, matrix.id, name=name), matrix.batch, matrix.rows, matrix.cols, dims
    )


MATCHERS[torch.ops.aten.relu.default] = relu

# 3. How the emulator computes it: a line in the table of torch_xdna/devices/emulator/chunk.py.
ROW_STEPS[Relu] = on_rows(torch.relu)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def main() -> None:
    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(2, 50, 64)
    for device in ("emulator", "array"):
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="xdna", options={"device": device})
        with torch.no_grad():
            distance = (compiled(x) - model(x)).norm() / model(x).norm()
        (report,) = torch_xdna.reports()
        print(f"{device}: relative distance from eager {distance:.5f}\n{report}")


if __name__ == "__main__":
    main()
