"""Random modules out of what the matcher knows and what it must leave alone, chained and branched: the numbers of
float64 as closely as the same module in bf16, eager's shapes, dtypes and strides, inputs untouched.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparing import compiled
from torch import Tensor, nn

import torch_xdna

HEAD = 64


def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, HEAD)).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = _heads(q) * HEAD**-0.5 @ _heads(k).transpose(-1, -2)
    return _joined(scores.softmax(-1) @ _heads(v))


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _joined(F.scaled_dot_product_attention(_heads(q), _heads(k), _heads(v), is_causal=True))


def _cross(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Fewer keys than queries."""
    keys, values = (_heads(x[:, : max(1, x.shape[1] // 2)]) for x in (k, v))
    return _joined(F.scaled_dot_product_attention(_heads(q), keys, values))


def _in_place(x: Tensor, y: Tensor) -> Tensor:
    out = x.clone()
    out[:, ::2] += y[:, ::2]
    return out.mul_(0.5)


# name -> (how many tensors of one width it takes, the call)
PLAIN: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "gelu": (1, F.gelu),
    "gelu_tanh": (1, lambda x: F.gelu(x, approximate="tanh")),
    "softmax": (1, lambda x: F.softmax(x, -1) * x.shape[-1] ** 0.5),
    "softmax over rows": (1, lambda x: F.softmax(x, 1)),
    "sin": (1, torch.sin),
    "scale": (1, lambda x: x * 0.7),
    "dropout": (1, lambda x: F.dropout(x, 0.1, training=False)),
    "other order": (1, lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)),
    "shifted": (1, lambda x: F.pad(x[:, 1:], (0, 0, 1, 0))),
    "rms": (1, lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)),
    "norm": (1, lambda x: F.layer_norm(x, x.shape[-1:])),
    "add": (2, lambda x, y: (x + y) * 0.7),
    "add with alpha": (2, lambda x, y: torch.add(x, y, alpha=0.5)),
    "gate": (2, lambda x, y: x * torch.tanh(y)),
    "in place": (2, _in_place),
    "attention": (3, lambda *qkv: _joined(F.scaled_dot_product_attention(*map(_heads, qkv)))),
    "attention, scaled": (
        3,
        lambda *qkv: _joined(F.scaled_dot_product_attention(*map(_heads, qkv), scale=0.2)),
    ),
    "attention by hand": (3, _by_hand),
    "causal attention": (3, _causal),
    "cross attention": (3, _cross),
}


def _qkv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return PLAIN["attention"][1](*F.linear(x, weight, bias).chunk(3, -1))


# name -> (times the width that comes out, the call with a weight (n, k) and a bias (n,))
WEIGHTED: dict[str, tuple[float, Callable[..., Tensor]]] = {
    "linear": (1, F.linear),
    "wide": (1.5, F.linear),
    "linear, gelu": (1, lambda x, w, b: F.gelu(F.linear(x, w, b))),
    "linear, relu": (1, lambda x, w, b: F.relu(F.linear(x, w, b))),
    "no bias": (1, lambda x, w, b: F.linear(x, w)),
    "matmul": (1, lambda x, w, b: x @ w.T),
    "einsum": (1, lambda x, w, b: torch.einsum("btd,nd->btn", x, w)),
    "addmm": (1, lambda x, w, b: torch.addmm(b, x.flatten(0, 1), w.T).unflatten(0, x.shape[:2])),
    "residual": (1, lambda x, w, b: x + F.linear(F.layer_norm(x, x.shape[-1:]), w, b)),
    "affine norm": (1, lambda x, w, b: F.layer_norm(x, x.shape[-1:], 1 + w[0], b)),
    "fused q, k, v": (3, _qkv),
}


class RandomModule(nn.Module):
    """Each step takes earlier values of one width, and its result is one more value."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choice, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        self.rows, self.width = choice.choice((5, 33, 64, 70)), choice.choice((64, 128, 192))
        self.weights, self.steps = nn.ParameterList(), list[tuple[str, list[int], int]]()
        widths = [self.width]
        for _ in range(choice.randint(3, 9)):
            x = choice.randrange(len(widths))
            name = choice.choice([*PLAIN, *WEIGHTED])
            if "attention" in name and widths[x] % HEAD:
                continue
            if name in PLAIN:
                same = [i for i, width in enumerate(widths) if width == widths[x]]
                taken = [x] + [choice.choice(same) for _ in range(PLAIN[name][0] - 1)]
                self.steps.append((name, taken, -1))
                widths.append(widths[x])
            elif name != "fused q, k, v" or widths[x] % HEAD == 0:
                n = int(WEIGHTED[name][0] * widths[x])
                self.steps.append((name, [x], len(self.weights)))
                for shape, scale in (((n, widths[x]), widths[x] ** -0.5), ((n,), 0.3)):
                    self.weights.append(torch.randn(*shape, generator=generator) * scale)
                widths.append(widths[x] if n == 3 * widths[x] else n)
        self.given = sorted({len(widths) - 1, choice.randrange(len(widths))})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values = [x]
        for name, taken, weight in self.steps:
            tensors = [values[i] for i in taken]
            if weight < 0:
                values.append(PLAIN[name][1](*tensors))
            else:
                values.append(WEIGHTED[name][1](*tensors, self.weights[weight], self.weights[weight + 1]))
        return tuple(values[i] for i in self.given)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm().clamp_min(1e-12))


SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
@torch.no_grad()
def test_random_module(seed: int) -> None:
    module = RandomModule(seed).eval()
    as_in_float64(module, compiled(module), [(2, module.rows), (3, module.rows)])


@pytest.mark.parametrize("seed", [4, 141, 183])
@torch.no_grad()
def test_every_size_symbolic(seed: int) -> None:
    """(Found with these: clips times rows as one symbolic batch, which could not be told apart again.)"""
    module = RandomModule(seed).eval()
    run = torch.compile(module, backend="xdna", dynamic=True, options={"device": "emulator"})
    as_in_float64(module, run, [(2, module.rows), (3, module.rows + 4), (1, 9)])


def as_in_float64(module: RandomModule, run: Callable, sizes: list[tuple[int, int]]) -> None:
    generator = torch.Generator().manual_seed(0)
    for batch, rows in sizes:
        x = torch.randn(batch, rows, module.width, generator=generator)
        kept = x.clone()
        found = run(x)
        assert torch.equal(x, kept)
        expected, exact, rounded = (
            copy.deepcopy(module).to(dtype)(x.to(dtype))
            for dtype in (torch.float32, torch.float64, torch.bfloat16)
        )
        for y, eager, best, bf16 in zip(found, expected, exact, rounded, strict=True):
            assert _form(y) == _form(eager) and torch.isfinite(y).all()
            assert error(y, best) <= 2.5 * error(bf16, best) + 0.006, module.steps


def _form(x: Tensor) -> Any:
    """A stride in a direction of one element says nothing."""
    return x.shape, x.dtype, [step for step, size in zip(x.stride(), x.shape, strict=True) if size > 1]


@pytest.mark.parametrize("name", [*PLAIN, "fused q, k, v"])
@torch.no_grad()
def test_sizes_that_change(name: str) -> None:
    """Dynamo makes a size symbolic when it changes; the device takes a batch like that and refuses the rest. (Found
    with these: a symbolic head size ended in a traceback.)"""
    count, call = PLAIN.get(name, (3, _qkv))
    run = compiled(lambda *tensors: call(*tensors))
    generator = torch.Generator().manual_seed(0)
    for rows, width in ((5, 64), (9, 128), (33, 192)):
        shapes = (
            [(2, rows, width)] * count
            if name in PLAIN
            else [(2, rows, width), (3 * width, width), (3 * width,)]
        )
        tensors = [torch.randn(shape, generator=generator) * shape[-1] ** -0.25 for shape in shapes]
        found, expected = run(*tensors), call(*tensors)
        assert _form(found) == _form(expected) and error(found, expected.double()) < 0.02
    if "attention" in name or name == "gelu":
        reasons = {row.reason for report in torch_xdna.reports() for row in report.rows}
        assert any("symbolic" in reason or "causal" in reason for reason in reasons), reasons


def test_they_are_worth_it() -> None:
    """Most of the modules reach the device, and most of them have something that must not."""
    reports, names = [], set()
    for seed in SEEDS:
        torch._dynamo.reset()
        module = RandomModule(seed).eval()
        names |= {name for name, *_ in module.steps}
        reports.append(torch_xdna.explain(module, torch.zeros(2, module.rows, module.width)))
    assert len(names) > 0.7 * (len(PLAIN) + len(WEIGHTED))
    assert sum(r.regions > 0 for r in reports) >= 8 and sum(r.eager_ops > 0 for r in reports) >= 5
