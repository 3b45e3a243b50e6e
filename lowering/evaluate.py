"""What a region computes, in numpy: float64 inside an op, bf16 between ops. For tests, and for interpreters without
torch. Not fast, and not bit-exact with any device (their sums are fp32): a second opinion on their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from torch_xdna.lowering import ops
from torch_xdna.lowering.host_data.bf16 import round_bf16

Params = Mapping[str, np.ndarray]


def evaluate(region: ops.Region, params: Params, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The region's outputs: fp32 arrays (rows, cols) that hold bf16 values.

    `params`: by name, in the shapes of `Region.params`; `inputs`: one (rows, cols) for each of `Region.inputs`.
    """
    values = {i: round_bf16(x) for i, x in zip(region.inputs, inputs)}

    def read(operand: int | str) -> np.ndarray:
        found = round_bf16(params[operand]) if isinstance(operand, str) else values[operand]
        return found.astype(np.float64)

    for op in region.ops:
        out = _EVALUATE[type(op)](op, region, read, params)
        values[op.out] = round_bf16(np.asarray(out, np.float32))
    return [values[i] for i in region.outputs]


_Read = Callable[[int | str], np.ndarray]


def _linear(op: ops.Linear, _: ops.Region, read: _Read, params: Params) -> np.ndarray:
    weight = read(op.weight)
    return _epilogue(op, read(op.x) @ (weight if op.transposed else weight.T), read, params)


def _conv1d(op: ops.Conv1d, region: ops.Region, read: _Read, params: Params) -> np.ndarray:
    x, weight, rows = np.pad(read(op.x), ((1, 1), (0, 0))), read(op.weight), region.value(op.out).rows
    taps = (x[tap:][: op.stride * rows : op.stride] for tap in range(weight.shape[2]))
    return _epilogue(op, sum(t @ weight[:, :, i].T for i, t in enumerate(taps)), read, params)  # type: ignore[arg-type]


def _epilogue(op: ops.Linear | ops.Conv1d, out: np.ndarray, read: _Read, params: Params) -> np.ndarray:
    out = out + params[op.bias] if op.bias else out
    out = ACTIVATE[op.activation](out) if op.activation else out
    return out if op.residual is None else out + read(op.residual)


def _layer_norm(op: ops.LayerNorm, _: ops.Region, read: _Read, params: Params) -> np.ndarray:
    x = read(op.x)
    out = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + op.eps)
    out = out * params[op.gamma] if op.gamma else out
    return out + params[op.beta] if op.beta else out


def _attention(op: ops.Attention, _: ops.Region, read: _Read, __: Params) -> np.ndarray:
    heads = zip(*(np.split(read(i), op.heads, axis=1) for i in (op.q, op.k, op.v)))
    return np.hstack([softmax(op.scale * q @ k.T) @ v for q, k, v in heads])


def gelu(x: np.ndarray) -> np.ndarray:
    """The erf form of each element of `x`."""
    erf = np.fromiter(map(math.erf, (x / math.sqrt(2)).ravel().tolist()), np.float64, x.size).reshape(x.shape)
    return 0.5 * x * (1 + erf)


def softmax(x: np.ndarray) -> np.ndarray:
    """Of each row of `x`."""
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


ACTIVATE = {ops.Activation.GELU: gelu}
_EVALUATE: dict[type[ops.Op], Callable[..., np.ndarray]] = {
    ops.Linear: _linear,
    ops.Conv1d: _conv1d,
    ops.LayerNorm: _layer_norm,
    ops.Softmax: lambda op, _, read, __: softmax(read(op.x)),
    ops.Gelu: lambda op, _, read, __: gelu(read(op.x)),
    ops.Add: lambda op, _, read, __: read(op.x) + read(op.y),
    ops.Attention: _attention,
}
