"""The ops' definitions (`lowering.ops`) in plain numpy, for interpreters without torch: fp32 inside an op,
bf16 between ops. Not fast, not bit-exact with the array (sums in another order); a second opinion on its
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lowering import ops
from lowering.host_data.bf16 import round_bf16

Params = Mapping[str, np.ndarray]


def run(region: ops.Region, params: Params, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The region's outputs, fp32 arrays that hold bf16 values."""
    values = {i: round_bf16(x) for i, x in zip(region.inputs, inputs)}
    for op in region.ops:
        values[op.out] = round_bf16(_op(op, values, params))
    return [values[i] for i in region.outputs]


def _op(op: ops.Op, values: dict[int, np.ndarray], params: Params) -> np.ndarray:
    if isinstance(op, ops.Linear):
        weight = round_bf16(params[op.weight])
        out = values[op.x] @ (weight if op.transposed else weight.T)
        out = out + params[op.bias] if op.bias else out
        out = gelu(out) if op.gelu else out
        return out if op.residual is None else out + values[op.residual]
    if isinstance(op, ops.LayerNorm):
        x = values[op.x]
        centred = x - x.mean(axis=1, keepdims=True)
        out = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + op.eps)
        out = out * params[op.gamma] if op.gamma else out
        return out + params[op.beta] if op.beta else out
    if isinstance(op, ops.Softmax):
        return softmax(values[op.x])
    if isinstance(op, ops.Gelu):
        return gelu(values[op.x])
    if isinstance(op, ops.Add):
        return values[op.x] + (values[op.y] if isinstance(op.y, int) else round_bf16(params[op.y]))
    if isinstance(op, ops.Attention):
        heads = [
            softmax(op.scale * q @ k.T) @ v
            for q, k, v in zip(*(np.split(values[i], op.heads, axis=1) for i in (op.q, op.k, op.v)))
        ]
        return np.concatenate(heads, axis=1)
    raise NotImplementedError(f"{type(op).__name__} has no reference here; the self-test does not use it")


def gelu(x: np.ndarray) -> np.ndarray:
    """The erf form."""
    erf = np.fromiter(map(math.erf, (x / math.sqrt(2)).ravel().tolist()), np.float64, x.size).reshape(x.shape)
    return (0.5 * x * (1 + erf)).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
