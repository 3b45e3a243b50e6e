"""Products by the CPU's own bf16 instructions, where it has them: bf16 operands, fp32 sums, one rounding at the end.

That is the definition of lowering/ops.py, and oneDNN applies bias, GELU (erf) and residual to the fp32 sums before it
rounds. Two things differ from the fp32 way in the last bit of a few results: the order of summation, and attention's
p = bf16(exp(s - m)), where torch's flash kernel subtracts the running maximum itself and not the integer above it
(relative distance of a result from the fp32 way about 2e-3, as one bf16 rounding; both as far from float64).

`TORCH_XDNA_EMULATOR=fp32` keeps to fp32 products, `bf16` takes these on any CPU (slower where it has to emulate).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_xdna.devices.emulator.memory import zeros
from torch_xdna.errors import SettingsError
from torch_xdna.lowering.ops import Activation

SWITCH = "TORCH_XDNA_EMULATOR"
BIAS_COLUMNS = 32
"""Columns that carry a bias beside a residual: oneDNN's fused addition takes no fp32 bias, so its upper, middle and
lower 8 bits of mantissa are three weights of three columns of ones; the rest fills the bf16 unit's step of k."""


def instructions() -> str | None:
    """What multiplies bf16 on this CPU: `AMX`, `AVX512-BF16`, or None."""
    for name, test in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        if getattr(torch.cpu, test, lambda: False)():
            return name
    return None


def chosen() -> bool:
    """Whether the emulator multiplies in bf16. Raises SettingsError for an unknown value of the switch."""
    wish = os.environ.get(SWITCH, "auto")
    if wish not in ("auto", "fp32", "bf16"):
        raise SettingsError(f"{SWITCH} is '{wish}', which is not known; use auto, fp32 or bf16")
    fits = torch.backends.mkldnn.is_available()
    if wish == "auto":
        return fits and instructions() is not None
    return fits and wish == "bf16"


@dataclass(frozen=True)
class Bf16Matrix:
    """`weight`: bf16 (n, k), or (n, k + BIAS_COLUMNS) where the bias stands in columns; else `bias`: fp32 (n,)."""

    weight: Tensor
    k: int
    bias: Tensor | None

    @property
    def nbytes(self) -> int:
        tensors = [self.weight] if self.bias is None else [self.weight, self.bias]
        return sum(t.untyped_storage().nbytes() for t in tensors)


def bf16_matrix(weights: list[Tensor], biases: list[Tensor | None], bias_in_columns: bool) -> Bf16Matrix:
    """Weights (n, k) below each other, with their biases (n,)."""
    n, k = sum(w.shape[0] for w in weights), weights[0].shape[1]
    bias = zeros((n,))
    matrix = zeros((n, k + BIAS_COLUMNS * bias_in_columns), torch.bfloat16)
    start = 0
    for weight, part in zip(weights, biases, strict=True):
        stop = start + len(weight)
        matrix[start:stop, :k].copy_(weight)
        if part is not None:
            bias[start:stop].copy_(part)
        start = stop
    if not bias_in_columns:
        return Bf16Matrix(matrix, k, bias)
    for column in range(k, k + 3):
        matrix[:, column].copy_(bias)
        bias = bias - matrix[:, column].float()
    return Bf16Matrix(matrix, k, None)


def operand(matrix: Bf16Matrix, memory: Tensor) -> Tensor:
    """The left operand's memory (rows, weight's columns), bf16, with the columns of the bias set; the others are the
    caller's to fill."""
    memory[:, matrix.k :].fill_(0.0)
    memory[:, matrix.k : matrix.k + 3].fill_(1.0)
    return memory


def product(
    x: Tensor, matrix: Bf16Matrix, *, activation: Activation | None, residual: Tensor | None
) -> Tensor:
    """bf16(act(x @ weight.T + bias)) or bf16(x @ weight.T + bias + residual), bf16 (rows, n); not both at once."""
    pointwise = torch.ops.mkldnn._linear_pointwise
    if residual is not None:
        return pointwise.binary(x, residual, matrix.weight, None, "add")
    return pointwise(x, matrix.weight, matrix.bias, activation.value if activation else "none", [], "none")


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q @ k.T) @ v per head: q (n, 64 heads), k and v (heads, t, 64), all bf16; bf16 (n, 64 heads).

    A row whose query, or whose keys or values, are not finite is NaN; torch's flash kernel would make it zero.
    """
    heads = q.unflatten(1, (len(k), -1)).transpose(0, 1)
    if _all_finite(heads, k, v):
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out = flash(heads[None], k[None], v[None], 0.0, False, attn_mask=None, scale=scale)[0][0]
    else:
        scores = torch.softmax(heads.float() @ k.float().mT * scale, -1)
        out = (scores @ v.float()).to(torch.bfloat16)
    return out.transpose(0, 1).reshape(q.shape)


def _all_finite(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether operands are, and so the scores must be (by Cauchy and Schwarz)."""
    norms = (torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32).amax(-1) for x in (q, k))
    scores = next(norms) * next(norms)
    return bool(torch.isfinite(scores).all() & torch.isfinite(v.sum(dtype=torch.float32)))
