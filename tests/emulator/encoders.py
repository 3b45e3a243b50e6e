"""A Whisper encoder as a region, its random parameters, and the same function in plain torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_xdna.lowering import ops as ir


@dataclass(frozen=True)
class Size:
    width: int
    layers: int
    context: int = 1500
    mels: int = 80


TINY, BASE, SMALL = Size(384, 4), Size(512, 6), Size(768, 12)


class Builder:
    """Collects values, parameters and ops of a region; parameters get random contents at once."""

    def __init__(self, seed: int = 0) -> None:
        self.values: list[ir.Value] = []
        self.ops: list[ir.Op] = []
        self.params: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)

    def value(self, rows: int, cols: int, name: str = "") -> int:
        self.values.append(ir.Value(len(self.values), rows, cols, name))
        return len(self.values) - 1

    def param(self, name: str, *shape: int, scale: float = 1.0, offset: float = 0.0) -> str:
        self.params[name] = torch.randn(shape, generator=self._generator) * scale + offset
        return name

    def add(self, op: ir.Op) -> int:
        self.ops.append(op)
        return op.out

    def region(self, inputs: list[int], outputs: list[int]) -> ir.Region:
        params = tuple(ir.Param(name, tuple(p.shape)) for name, p in self.params.items())
        return ir.Region(tuple(self.values), tuple(inputs), tuple(outputs), params, tuple(self.ops))

    def linear(self, x: int, cols: int, name: str, bias: bool = True, **extra) -> int:
        value = self.values[x]
        weight = self.param(f"{name}.weight", cols, value.cols, scale=value.cols**-0.5)
        out = self.value(value.rows, cols, name)
        b = self.param(f"{name}.bias", cols, scale=0.1) if bias else None
        activation = ir.Activation.GELU if extra.pop("gelu", False) else None
        return self.add(ir.Linear(out, x, weight, b, activation, name=name, **extra))

    def layer_norm(self, x: int, name: str) -> int:
        value = self.values[x]
        gamma = self.param(f"{name}.weight", value.cols, scale=0.1, offset=1.0)
        beta = self.param(f"{name}.bias", value.cols, scale=0.1)
        return self.add(ir.LayerNorm(self.value(value.rows, value.cols), x, gamma, beta, name=name))

    def layer(self, h: int, name: str) -> int:
        width = self.values[h].cols
        n = self.layer_norm(h, f"{name}.norm1")
        q, v = (self.linear(n, width, f"{name}.{part}") for part in "qv")
        k = self.linear(n, width, f"{name}.k", bias=False)
        attended = self.add(ir.Attention(self.value(self.values[h].rows, width), q, k, v, width // 64))
        h = self.linear(attended, width, f"{name}.out", residual=h)
        n = self.layer_norm(h, f"{name}.norm2")
        return self.linear(
            self.linear(n, 4 * width, f"{name}.fc1", gelu=True), width, f"{name}.fc2", residual=h
        )


def encoder(size: Size, seed: int = 0) -> tuple[ir.Region, dict[str, Tensor]]:
    """The region (input: mel frames x mels) and its parameters."""
    b, frames, width = Builder(seed), 2 * size.context, size.width
    mel = b.value(frames, size.mels, "mel")
    w1 = b.param("conv1.weight", width, size.mels, 3, scale=(3 * size.mels) ** -0.5)
    w2 = b.param("conv2.weight", width, width, 3, scale=(3 * width) ** -0.5)
    b1, b2 = (b.param(f"conv{i}.bias", width, scale=0.1) for i in (1, 2))
    positions = b.param("positions", size.context, width)
    h = b.add(ir.Conv1d(b.value(frames, width), mel, w1, b1, activation=ir.Activation.GELU))
    h = b.add(
        ir.Conv1d(
            b.value(size.context, width),
            h,
            w2,
            b2,
            stride=2,
            activation=ir.Activation.GELU,
            residual=positions,
        )
    )
    for i in range(size.layers):
        h = b.layer(h, f"layers.{i}")
    return b.region([mel], [b.layer_norm(h, "norm")]), b.params


def one_layer(size: Size) -> tuple[ir.Region, dict[str, Tensor]]:
    b = Builder()
    x = b.value(size.context, size.width)
    return b.region([x], [b.layer(x, "layer")]), b.params


def reference(
    region: ir.Region, params: dict[str, Tensor], inputs: list[Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """What eager torch computes for a region in `dtype`; inputs (batch, rows, cols)."""
    p = {name: value.to(dtype) for name, value in params.items()}
    env = {v: x.to(dtype) for v, x in zip(region.inputs, inputs, strict=True)}
    for op in region.ops:
        env[op.out] = _eager(op, p, env)
    return [env[v] for v in region.outputs]


def _eager(op: ir.Op, p: dict[str, Tensor], env: dict[int, Tensor]) -> Tensor:
    def read(name: str | int | None) -> Tensor | None:
        return None if name is None else env[name] if isinstance(name, int) else p[name]

    if isinstance(op, ir.Linear | ir.Conv1d):
        weight, bias = p[op.weight], read(op.bias)
        if isinstance(op, ir.Conv1d):
            out = F.conv1d(env[op.x].mT, weight, bias, op.stride, padding=1).mT
        else:
            out = F.linear(env[op.x], weight.t() if op.transposed else weight, bias)
        out = F.gelu(out) if op.activation else out
        residual = read(op.residual)
        return out if residual is None else residual + out
    if isinstance(op, ir.Attention):
        q, k, v = (env[i].unflatten(-1, (op.heads, -1)).transpose(1, 2) for i in (op.q, op.k, op.v))
        return F.scaled_dot_product_attention(q, k, v, scale=op.scale).transpose(1, 2).flatten(2)
    x = env[op.x]
    if isinstance(op, ir.LayerNorm):
        return F.layer_norm(x, x.shape[-1:], read(op.gamma), read(op.beta), op.eps)
    if isinstance(op, ir.Softmax):
        return F.softmax(x, -1)
    if isinstance(op, ir.Gelu):
        return F.gelu(x)
    assert isinstance(op, ir.Add), op
    return x + read(op.y)


def shortened(size: Size, context: int, layers: int = 2) -> Size:
    return replace(size, context=context, layers=layers)
