"""Regions with random parameters, in plain numpy: for both sides of the sandbox."""

from __future__ import annotations

import numpy as np

from torch_xdna.lowering.ops import (
    Activation,
    Add,
    Attention,
    Conv1d,
    Gelu,
    LayerNorm,
    Linear,
    Op,
    Param,
    Region,
    Softmax,
    Value,
)

HEAD = 64


def encoder(
    layers: int = 1, width: int = 64, rows: int = 128, *, mels: int = 80, convolutions: bool = True
) -> Region:
    """A Whisper encoder: two convolutions over 2 `rows` frames, `layers` layers, a last layer_norm."""
    values: list[Value] = []
    params: list[Param] = []
    ops: list[Op] = []

    def value(n_rows: int, cols: int) -> int:
        values.append(Value(len(values), n_rows, cols))
        return len(values) - 1

    def param(name: str, *shape: int) -> str:
        params.append(Param(name, shape))
        return name

    def linear(name: str, x: int, n: int, k: int, bias: bool = True, **rest) -> int:
        out = value(rows, n)
        b = param(f"{name}.bias", n) if bias else None
        ops.append(Linear(out, name=name, x=x, weight=param(f"{name}.weight", n, k), bias=b, **rest))
        return out

    def norm(name: str, x: int) -> int:
        out = value(rows, width)
        gamma, beta = param(f"{name}.gamma", width), param(f"{name}.beta", width)
        ops.append(LayerNorm(out, name=name, x=x, gamma=gamma, beta=beta))
        return out

    if convolutions:
        first = value(2 * rows, mels)
        middle, h = value(2 * rows, width), value(rows, width)
        weight, bias = param("conv1.weight", width, mels, 3), param("conv1.bias", width)
        ops.append(
            Conv1d(middle, name="conv1", x=first, weight=weight, bias=bias, activation=Activation.GELU)
        )
        weight, bias = param("conv2.weight", width, width, 3), param("conv2.bias", width)
        position = param("positions", rows, width)
        ops.append(
            Conv1d(
                h,
                name="conv2",
                x=middle,
                weight=weight,
                bias=bias,
                stride=2,
                activation=Activation.GELU,
                residual=position,
            )
        )
    else:
        first = h = value(rows, width)
    for i in range(layers):
        n = norm(f"{i}.norm1", h)
        q, v = linear(f"{i}.q", n, width, width), linear(f"{i}.v", n, width, width)
        k = linear(f"{i}.k", n, width, width, bias=False)
        a = value(rows, width)
        ops.append(Attention(a, name=f"{i}.attention", q=q, k=k, v=v, heads=width // HEAD))
        h = linear(f"{i}.out", a, width, width, residual=h)
        n = norm(f"{i}.norm2", h)
        h = linear(
            f"{i}.fc2",
            linear(f"{i}.fc1", n, 4 * width, width, activation=Activation.GELU),
            width,
            4 * width,
            residual=h,
        )
    last = norm("norm", h)
    return Region(tuple(values), (first,), (last,), tuple(params), tuple(ops), f"encoder{layers}x{width}")


def single_ops() -> dict[str, Region]:
    """One region per kind of op, in small and uneven shapes."""

    def region(op: Op, sizes: list[tuple[int, int]], params: list[tuple[str, tuple[int, ...]]]) -> Region:
        values = tuple(Value(i, *size) for i, size in enumerate(sizes))
        named = tuple(Param(name, shape) for name, shape in params)
        return Region(values, op.inputs, (op.out,), named, (op,), type(op).__name__.lower())

    weight = ("w", (192, 130))
    product, residual = [(100, 130), (100, 192)], [(100, 130), (100, 192), (100, 192)]
    queries_and_keys = [(70, 192), (90, 192), (90, 192), (70, 192)]
    norm = [("g", (130,)), ("b", (130,))]
    return {
        "linear": region(Linear(1, x=0, weight="w", bias="b"), product, [weight, ("b", (192,))]),
        "linear, gelu": region(Linear(1, x=0, weight="w", activation=Activation.GELU), product, [weight]),
        "linear, residual": region(Linear(2, x=0, weight="w", residual=1), residual, [weight]),
        "layer_norm": region(LayerNorm(1, x=0, gamma="g", beta="b"), [(100, 130)] * 2, norm),
        "softmax": region(Softmax(1, x=0), [(100, 130)] * 2, []),
        "gelu": region(Gelu(1, x=0), [(100, 130)] * 2, []),
        "add": region(Add(2, x=0, y=1), [(100, 130)] * 3, []),
        "attention": region(Attention(3, q=0, k=1, v=2, heads=3), queries_and_keys, []),
    }


def parameters(region: Region, seed: int = 0) -> dict[str, np.ndarray]:
    """Random parameters of a trained model's size."""
    rng = np.random.default_rng(seed)
    out = {}
    for p in region.params:
        fan = int(np.prod(p.shape[1:])) if len(p.shape) > 1 else 1
        values = rng.standard_normal(p.shape) / np.sqrt(fan)
        if p.name.endswith(".gamma"):
            values = 1 + 0.1 * values
        elif len(p.shape) == 1:
            values = 0.1 * values
        out[p.name] = values.astype(np.float32)
    return out


def inputs(region: Region, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [(region.value(i).rows, region.value(i).cols) for i in region.inputs]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
