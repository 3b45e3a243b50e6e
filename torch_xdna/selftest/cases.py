"""What is tested: each op in Whisper's shapes (or small and uneven ones), and an encoder with all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from torch_xdna.lowering.ops import (
    Activation,
    Add,
    Attention,
    Gelu,
    LayerNorm,
    Linear,
    Op,
    Param,
    Region,
    Softmax,
    Value,
)

# Relative L2 error allowed. One more rounding to bf16 is 1.1e-3 on average; attention rounds its
# probabilities, the encoder adds up layers. A wrong block, order or parameter is far above any of these.
OP_TOLERANCE, ATTENTION_TOLERANCE, ENCODER_TOLERANCE = 4e-3, 1e-2, 2e-2

ENCODER = "encoder, 2 layers of 128"


Shapes = dict[str, tuple[int, ...]]  # of an op's parameters, by role


@dataclass(frozen=True)
class Case:
    name: str
    region: Region
    tolerance: float = OP_TOLERANCE

    @property
    def shape(self) -> str:
        """Rows x cols of all inputs -> outputs."""
        sizes = [
            ", ".join(f"{self.region.value(v).rows}x{self.region.value(v).cols}" for v in ids)
            for ids in (self.region.inputs, self.region.outputs)
        ]
        return " -> ".join(sizes)

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        """Random values of a trained model's size, the same on every machine."""
        rng = np.random.default_rng(7)
        out = {}
        for p in self.region.params:
            fan = int(np.prod(p.shape[1:])) if len(p.shape) > 1 else 100
            offset = 1.0 if p.name.endswith("gamma") else 0.0
            out[p.name] = (offset + rng.standard_normal(p.shape) / np.sqrt(fan)).astype(np.float32)
        return out

    @cached_property
    def inputs(self) -> list[np.ndarray]:
        rng = np.random.default_rng(8)
        values = [self.region.value(i) for i in self.region.inputs]
        return [rng.standard_normal((v.rows, v.cols)).astype(np.float32) for v in values]


def all_cases(*, quick: bool = False) -> Iterator[Case]:
    """Every op, then encoders. `quick`: small shapes only; else whisper-base's as well."""
    rows, width, wide = (100, 130, 260) if quick else (1500, 512, 2048)
    heads = 2 if quick else 8
    yield Case("linear", linear(rows, width, width))
    yield Case("linear, gelu", linear(rows, width, wide, gelu=True))
    yield Case("linear, residual", linear(rows, wide, width, residual=True))
    norm = LayerNorm(1, x=0, gamma="gamma", beta="beta")
    yield Case(
        "layer_norm", single(norm, [(rows, width)] * 2, [Param("gamma", (width,)), Param("beta", (width,))])
    )
    yield Case("softmax", single(Softmax(1, x=0), [(rows, width)] * 2))
    yield Case("gelu", single(Gelu(1, x=0), [(rows, wide)] * 2))
    yield Case("add", single(Add(2, x=0, y=1), [(rows, width)] * 3))
    attention = Attention(3, q=0, k=1, v=2, heads=heads)
    yield Case("attention", single(attention, [(rows, 64 * heads)] * 4), ATTENTION_TOLERANCE)
    yield Case("one layer of 128", encoder(1, 128, 200), ENCODER_TOLERANCE)
    yield Case(ENCODER, encoder(2, 128, 200), ENCODER_TOLERANCE)
    if not quick:
        yield Case("tiny's layers", encoder(4, 384, 1500), ENCODER_TOLERANCE)
        yield Case("base's layers", encoder(6, 512, 1500), ENCODER_TOLERANCE)


def add_region(rows: int, cols: int) -> Region:
    """x + y: the op that computes least per byte."""
    return single(Add(2, x=0, y=1), [(rows, cols)] * 3)


def single(op: Op, sizes: list[tuple[int, int]], params: list[Param] | None = None) -> Region:
    values = tuple(Value(i, *size) for i, size in enumerate(sizes))
    return Region(values, op.inputs, (op.out,), tuple(params or ()), (op,), type(op).__name__.lower())


def linear(rows: int, k: int, n: int, *, gelu: bool = False, residual: bool = False) -> Region:
    params = [Param("weight", (n, k)), Param("bias", (n,))]
    activation = Activation.GELU if gelu else None
    if residual:
        op = Linear(2, x=0, weight="weight", bias="bias", activation=activation, residual=1)
        return single(op, [(rows, k), (rows, n), (rows, n)], params)
    return single(
        Linear(1, x=0, weight="weight", bias="bias", activation=activation),
        [(rows, k), (rows, n)],
        params,
    )


def encoder(layers: int, width: int, rows: int) -> Region:
    """Transformer layers as in Whisper, without its convolutions."""
    values, ops = [Value(0, rows, width)], list[Op]()
    params = list[Param]()

    def step(make: type[Op], name: str, cols: int = width, shapes: Shapes | None = None, **rest: Any) -> int:
        named = {role: f"{name}.{role}" for role in shapes or {}}
        params.extend(Param(named[role], shape) for role, shape in (shapes or {}).items())
        values.append(Value(len(values), rows, cols, name))
        ops.append(make(len(values) - 1, name=name, **named, **rest))
        return len(values) - 1

    def norm(name: str, x: int) -> int:
        return step(LayerNorm, name, shapes={"gamma": (width,), "beta": (width,)}, x=x)

    def dense(name: str, x: int, k: int = width, n: int = width, **rest: Any) -> int:
        return step(Linear, name, n, {"weight": (n, k), "bias": (n,)}, x=x, **rest)

    h = 0
    for i in range(layers):
        x = norm(f"{i}.norm1", h)
        q, k, v = (dense(f"{i}.{role}", x) for role in "qkv")
        a = step(Attention, f"{i}.attention", q=q, k=k, v=v, heads=width // 64)
        h = dense(f"{i}.out", a, residual=h)
        x = dense(f"{i}.fc1", norm(f"{i}.norm2", h), n=4 * width, activation=Activation.GELU)
        h = dense(f"{i}.fc2", x, k=4 * width, residual=h)
    last = norm("norm", h)
    return Region(tuple(values), (0,), (last,), tuple(params), tuple(ops), f"encoder{layers}x{width}")
