"""Regions to try, parameters and inputs for them."""

import numpy as np

from torch_xdna.lowering import ops
from torch_xdna.lowering.whisper import EncoderConfig, encoder_region


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

    def linear(self, x, n, name, bias=True, gelu=False, **options):
        options["activation"] = ops.Activation.GELU if gelu else None
        rows, k = self.values[x].rows, self.values[x].cols
        out = self.value(rows, n, name)
        weight = self.param(f"{name}.weight", *((k, n) if options.get("transposed") else (n, k)))
        named = self.param(f"{name}.bias", n) if bias else None
        self.ops.append(ops.Linear(out, x, weight, named, name=name, **options))
        return out

    def conv(self, x, n, name, stride=1, gelu=False, **options):
        options["activation"] = ops.Activation.GELU if gelu else None
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
