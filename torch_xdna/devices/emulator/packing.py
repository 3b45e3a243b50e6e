"""Parameters as the chunks read them: weights rounded to bf16 values, with the bias as a column.

Where the CPU multiplies bf16 itself, weights are kept in bf16 (native_bf16.py). Else the bias is one more column of the
weight (fp32, not rounded) and every operand gets a column of ones: the product then adds it by itself, without another
pass over the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_xdna.devices.emulator.chunk_plan import ChunkPlan, Product
from torch_xdna.devices.emulator.memory import empty, zeros
from torch_xdna.devices.emulator.native_bf16 import Bf16Matrix, bf16_matrix
from torch_xdna.lowering import ops as ir

LANES = 16  # fp32 numbers in a cache line: rows start on one


@dataclass(frozen=True)
class Packed:
    """Keys are the steps' `out`. `matrices`: fp32 (n, k + 1), the last column the bias, or for the CPU's own bf16
    product. `norms`: gamma and beta, fp32. `positions`: bf16 (rows, cols), parameters that are added to a value.
    """

    matrices: dict[int, Tensor | Bf16Matrix]
    norms: dict[int, tuple[Tensor, Tensor]]
    positions: dict[int, Tensor]

    @property
    def nbytes(self) -> int:
        tensors = [*self.positions.values(), *(t for n in self.norms.values() for t in n)]
        matrices = list(self.matrices.values())
        in_fp32 = [m for m in matrices if isinstance(m, Tensor)]
        in_bf16 = [m for m in matrices if isinstance(m, Bf16Matrix)]
        return sum(t.untyped_storage().nbytes() for t in (*tensors, *in_fp32)) + sum(
            m.nbytes for m in in_bf16
        )


def pack(plan: ChunkPlan, params: Mapping[str, Tensor], *, native: bool = False) -> Packed:
    """Copies of the parameters; nothing in the result shares memory with them. `native`: for the CPU's own bf16
    product, wherever that can do a step whole."""
    packed = Packed({}, {}, {})
    with torch.inference_mode(False), torch.no_grad():
        phases = [phase for stage in plan.stages for phase in stage.phases]
        for step in (step for phase in phases for step in (phase.matrix, *phase.steps)):
            if isinstance(step, Product):
                weights = [params[p.weight].t() if p.transposed else params[p.weight] for p in step.parts]
                biases = [_optional(params, p.bias) for p in step.parts]
                packed.matrices[step.out] = _matrix(weights, biases, step.parts[0], native)
            elif isinstance(step, ir.Conv1d):
                taps = params[step.weight].permute(0, 2, 1).flatten(1)  # (out, 3 in): tap by tap
                packed.matrices[step.out] = _matrix([taps], [_optional(params, step.bias)], step, native)
                if isinstance(step.residual, str):
                    packed.positions[step.out] = _copy(params[step.residual], torch.bfloat16)
            elif isinstance(step, ir.Add) and isinstance(step.y, str):
                packed.positions[step.out] = _copy(params[step.y], torch.bfloat16)
            elif isinstance(step, ir.LayerNorm):
                cols = plan.region.value(step.x).cols
                gamma = _copy(params[step.gamma]) if step.gamma is not None else empty((cols,)).fill_(1)
                beta = _copy(params[step.beta]) if step.beta is not None else zeros((cols,))
                packed.norms[step.out] = (gamma, beta)
    return packed


def _matrix(
    weights: list[Tensor], biases: list[Tensor | None], step: ir.Linear | ir.Conv1d, native: bool
) -> Tensor | Bf16Matrix:
    if native and not (step.activation and step.residual is not None):  # oneDNN fuses one of them, not both
        return bf16_matrix(weights, biases, bias_in_columns=step.residual is not None)
    n, k = sum(w.shape[0] for w in weights), weights[0].shape[1]
    matrix = zeros((n, -(-(k + 1) // LANES) * LANES))[:, : k + 1]
    for rows, weight, bias in zip(matrix.split([w.shape[0] for w in weights]), weights, biases, strict=True):
        rows[:, :k].copy_(weight.to(torch.bfloat16))
        if bias is not None:
            rows[:, k].copy_(bias)
    return matrix


def _copy(parameter: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return empty(parameter.shape, dtype).copy_(parameter)


def _optional(params: Mapping[str, Tensor], name: str | None) -> Tensor | None:
    return None if name is None else params[name]
