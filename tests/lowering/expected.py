"""What a region computes, in numpy (float64 inside, bf16 between ops), and regions to try."""

import numpy as np
from reference import gelu

from lowering import ops
from lowering.host_data.bf16 import round_bf16
from lowering.whisper import EncoderConfig, encoder_region


def evaluate(region, params, inputs):
    """The region's outputs, fp32 holding bf16 values."""
    values = {i: round_bf16(x) for i, x in zip(region.inputs, inputs)}

    def operand(named):
        return round_bf16(params[named]) if isinstance(named, str) else values[named]

    for op in region.ops:
        if isinstance(op, ops.Linear):
            weight = round_bf16(params[op.weight])
            out = values[op.x].astype(np.float64) @ (weight if op.transposed else weight.T)
        elif isinstance(op, ops.Conv1d):
            x, weight, rows = (
                np.pad(values[op.x], ((1, 1), (0, 0))),
                round_bf16(params[op.weight]),
                region.value(op.out).rows,
            )
            taps = (x[tap:][: op.stride * rows : op.stride].astype(np.float64) for tap in range(3))
            out = sum(rows_of_tap @ weight[:, :, tap].T for tap, rows_of_tap in enumerate(taps))
        elif isinstance(op, ops.LayerNorm):
            x = values[op.x].astype(np.float64)
            out = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + op.eps)
            out = out * (params[op.gamma] if op.gamma else 1) + (params[op.beta] if op.beta else 0)
        elif isinstance(op, ops.Softmax):
            out = softmax(values[op.x])
        elif isinstance(op, ops.Gelu):
            out = gelu(values[op.x])
        elif isinstance(op, ops.Add):
            out = values[op.x] + operand(op.y)
        else:
            q, k, v = values[op.q], values[op.k], values[op.v]
            heads = [slice(64 * h, 64 * h + 64) for h in range(op.heads)]
            out = np.hstack([softmax(op.scale * q[:, h] @ k[:, h].T) @ v[:, h] for h in heads])
        if isinstance(op, ops.Linear | ops.Conv1d):
            out = out + (params[op.bias] if op.bias else 0)
            out = gelu(out) if op.gelu else out
            out = out + (0 if op.residual is None else operand(op.residual))
        values[op.out] = round_bf16(np.asarray(out, np.float32))
    return [values[i] for i in region.outputs]


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def random_params(region, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    for param in region.params:
        fan_in = np.prod(param.shape[1:]) if len(param.shape) > 1 else 100
        found[param.name] = (rng.standard_normal(param.shape) / np.sqrt(fan_in)).astype(np.float32)
        if param.name.endswith("gamma"):
            found[param.name] += 1
    return found


def random_inputs(region, seed=1):
    rng = np.random.default_rng(seed)
    shapes = [(region.value(i).rows, region.value(i).cols) for i in region.inputs]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


class Builder:
    """A region, op by op: every method returns the id of the new value."""

    def __init__(self):
        self.values, self.params, self.ops, self.inputs = [], {}, [], []

    def value(self, rows, cols, name):
        self.values.append(ops.Value(len(self.values), rows, cols, name))
        return len(self.values) - 1

    def input(self, rows, cols, name="x"):
        self.inputs.append(self.value(rows, cols, name))
        return self.inputs[-1]

    def param(self, name, *shape):
        self.params[name] = shape
        return name

    def linear(self, x, n, name, bias=True, **options):
        rows, k = self.values[x].rows, self.values[x].cols
        out = self.value(rows, n, name)
        weight = self.param(f"{name}.weight", *((k, n) if options.get("transposed") else (n, k)))
        named = self.param(f"{name}.bias", n) if bias else None
        self.ops.append(ops.Linear(out, x, weight, named, name=name, **options))
        return out

    def conv(self, x, n, name, stride=1, **options):
        rows, channels = self.values[x].rows, self.values[x].cols
        out = self.value((rows - 1) // stride + 1, n, name)
        weight, bias = self.param(f"{name}.weight", n, channels, 3), self.param(f"{name}.bias", n)
        self.ops.append(ops.Conv1d(out, x, weight, bias, stride, name=name, **options))
        return out

    def op(self, kind, name, x, *others, **options):
        out = self.value(self.values[x].rows, self.values[x].cols, name)
        self.ops.append(kind(out, x, *others, name=name, **options))
        return out

    def norm(self, x, name):
        cols = self.values[x].cols
        return self.op(
            ops.LayerNorm, name, x, self.param(f"{name}.gamma", cols), self.param(f"{name}.beta", cols)
        )

    def region(self, *outputs, name="test"):
        params = tuple(ops.Param(n, shape) for n, shape in self.params.items())
        return ops.Region(tuple(self.values), tuple(self.inputs), outputs, params, tuple(self.ops), name)


def whisper(layers, width, heads, context, mel=80):
    return encoder_region(EncoderConfig("test", layers, width, heads, 4 * width, mel), context)
