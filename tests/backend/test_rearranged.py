"""Every pair of ops with a rearrangement in between: what one op writes, the next reads in another arrangement.

The device knows (batch, rows, cols) only, so the second op often needs another matrix than the first one wrote
(its rows as columns, its heads as clips). Sizes are equal on purpose: where batch, rows and columns are of one
size, a wrong arrangement has the right shape, and only its numbers tell.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from comparing import compiled, only_report
from torch import Tensor

import torch_xdna

ALL = bool(os.environ.get("XDNA_ALL_PAIRS"))  # minutes; without it a sample
Given = dict[str, Tensor]


def _attention(x: Tensor, g: Given) -> Tensor:
    return F.scaled_dot_product_attention(x, g["y"].expand_as(x), x)


def _over_heads(x: Tensor) -> Tensor:
    q = x.unflatten(1, (8, 8))
    return F.scaled_dot_product_attention(q, q, q)


def _by_hand(x: Tensor, g: Given) -> Tensor:
    return (x @ g["y"].mT * x.shape[-1] ** -0.5).softmax(-1) @ x


# All of them take and give (n, n, n).
OPS: dict[str, Callable[[Tensor, Given], Tensor]] = {
    "gelu": lambda x, g: F.gelu(x),
    "add": lambda x, g: x + g["y"],
    "add to it": lambda x, g: g["y"] + x,
    "twice": lambda x, g: x + x.transpose(1, 2),
    "weight added": lambda x, g: x + g["w"],
    "norm": lambda x, g: F.layer_norm(x, x.shape[-1:], g["v"], g["b"]),
    "softmax": lambda x, g: F.softmax(x, -1) * x.shape[-1] ** 0.5,
    "linear": lambda x, g: F.linear(x, g["w"], g["b"]),
    "matmul": lambda x, g: x @ g["w"],
    "conv": lambda x, g: F.conv1d(x, g["k"], g["b"], padding=1),
    "stride 2": lambda x, g: F.conv1d(x, g["k"], padding=1, stride=2).repeat(1, 1, 2),
    "attention": _attention,
    "by hand": _by_hand,
}
BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "rows and columns": lambda x: x.transpose(1, 2),
    "batch and rows": lambda x: x.transpose(0, 1),
    "batch and columns": lambda x: x.transpose(0, 2),
    "turned": lambda x: x.permute(1, 2, 0),
    "turned back, copied": lambda x: x.permute(2, 0, 1).contiguous(),
    "halved": lambda x: x * 0.5,
    "heads": lambda x: x.unflatten(-1, (2, -1)).transpose(1, 2).reshape(x.shape),
    "flat": lambda x: x.flatten(0, 1).mT.contiguous().view(x.shape),
    "columns in pieces": lambda x: x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2),
}


def given(n: int) -> Given:
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (n, n, n), "y": (n, n, n), "w": (n, n), "k": (n, n, 3), "v": (n,), "b": (n,)}
    scale = {"w": n**-0.5, "k": (3 * n) ** -0.5}
    return {
        name: torch.randn(shape, generator=generator) * scale.get(name, 1) for name, shape in shapes.items()
    }


def like_float64(fn: Callable[[Given], tuple[Tensor, ...]], names: list[str], g: Given) -> None:
    """No further from float64 than a few times eager's bf16."""
    found = compiled(fn)(g)
    expected = fn(g)
    exact, rounded = (fn({k: v.to(dtype) for k, v in g.items()}) for dtype in (torch.float64, torch.bfloat16))
    wrong = []
    for name, y, eager, best, bf16 in zip(names, found, expected, exact, rounded, strict=True):
        assert (y.shape, y.stride(), y.dtype) == (eager.shape, eager.stride(), eager.dtype), name
        off, may = ((t.double() - best).norm() / best.norm() for t in (y, bf16))
        if not off <= 2.5 * may + 0.006:
            wrong.append(f"{name}: {off:.3f}, bf16 {may:.3f}")
    assert not wrong, wrong


@pytest.mark.parametrize("n", [8, 64])
@pytest.mark.parametrize("first", OPS)
@torch.no_grad()
def test_pairs(first: str, n: int) -> None:
    """Results of one graph each; with n = 64 attention is on the device."""
    pairs = [(b, o) for b in BETWEEN for o in OPS]
    if not ALL:
        pairs = random.Random(f"{first} {n}").sample(pairs, 16 if n == 8 else 6)

    def every_pair(g: Given) -> tuple[Tensor, ...]:
        return tuple(OPS[second](BETWEEN[between](OPS[first](g["x"], g)), g) for between, second in pairs)

    like_float64(every_pair, [f"{first}, {between}, {second}" for between, second in pairs], given(n))
    assert only_report().regions > 0


@pytest.mark.parametrize("seed", range(400 if ALL else 12))
@torch.no_grad()
def test_chains(seed: int) -> None:
    choice = random.Random(seed)
    chain = [(choice.choice([*OPS]), choice.choice([*BETWEEN])) for _ in range(choice.randint(3, 6))]

    def run(g: Given) -> tuple[Tensor, ...]:
        x = g["x"]
        for op, between in chain:
            x = BETWEEN[between](OPS[op](x, g))
        return (x,)

    like_float64(run, [str(chain)], given(choice.choice((8, 16, 64))))


ENTERS_AGAIN: dict[str, Callable[[Given], Tensor]] = {
    "transposed residual, norm": lambda g: OPS["norm"](F.gelu(g["x"]).transpose(1, 2) + g["y"], g),
    "transposed residual, softmax": lambda g: F.softmax(F.gelu(g["x"]).transpose(1, 2) + g["y"], -1),
    "gelu, conv": lambda g: OPS["conv"](F.gelu(g["x"]), g),
    "add, conv": lambda g: OPS["conv"](g["x"] + g["y"], g),
    "norm, conv": lambda g: OPS["conv"](OPS["norm"](g["x"], g), g),
    "softmax, conv": lambda g: OPS["conv"](F.softmax(g["x"], -1), g),
    "conv, norm": lambda g: OPS["norm"](OPS["conv"](g["x"], g), g),
    "conv, softmax": lambda g: F.softmax(OPS["conv"](g["x"], g), -1),
    "attention, norm over heads": lambda g: OPS["norm"](
        F.scaled_dot_product_attention(*[g["x"].unflatten(1, (8, 8))] * 3), g
    ),
}


@pytest.mark.parametrize("name", ENTERS_AGAIN)
@torch.no_grad()
def test_a_matrix_enters_again_as_another(name: str) -> None:
    """(These ended in KeyError: the tensor's own op was taken to write the other matrix, too.)"""

    def one(g: Given) -> tuple[Tensor, ...]:
        return (ENTERS_AGAIN[name](g),)

    g = given(64)
    like_float64(one, [name], g)
    report = only_report()
    assert (report.regions, report.eager_ops) == (2, 0), str(report)
    assert torch_xdna.explain(one, g).regions == 2
