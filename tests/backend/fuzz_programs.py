"""Random programs for the fuzzer: source text over tensors whose sizes are often equal on purpose."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 300_000  # elements of a tensor
FINITE = 1e3  # larger values would overflow fp16 soon


@dataclass
class Program:
    """`lines` compute `outputs` from `tensors`: activations a0.., weights w0.., masks m0.., all in fp32 or bool."""

    dtype: torch.dtype
    as_module: bool  # weights are parameters, not arguments
    tensors: dict[str, Tensor] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        parameters = [n for n in self.tensors if self.as_module and n[0] == "w"]
        arguments = [n for n in self.tensors if n not in parameters]
        body = [f"{n} = self.{n}" for n in parameters] + self.lines
        body.append(f"return {', '.join(self.outputs)},")
        return "\n    ".join([f"def forward(self, {', '.join(arguments)}):", *body])

    def build(self, dtype: torch.dtype) -> tuple[Callable[..., Any], list[Tensor]]:
        """The program as a function, and its arguments."""
        space: dict[str, Any] = {"torch": torch, "F": F}
        exec(compile(self.source, "<program>", "exec"), space)
        tensors = {
            n: t.to(self.dtype).to(dtype) if t.is_floating_point() else t for n, t in self.tensors.items()
        }
        kind = type("Program", (nn.Module,), {"forward": space["forward"]})
        module = kind()
        for name, tensor in tensors.items():
            if self.as_module and name[0] == "w":
                setattr(module, name, nn.Parameter(tensor.clone(), requires_grad=False))
        arguments = [t.clone() for n, t in tensors.items() if not (self.as_module and n[0] == "w")]
        return module.eval(), arguments


class Writer:
    """Writes one program, step by step, each tried in float64 first."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(self.rng.randrange(2**31))
        kind = self.rng.choice(("equal", "mixed", "mixed"))
        one = self.rng.choice((2, 4, 8, 64))
        self.sizes = (
            (one,) if kind == "equal" else self.rng.choice(((1, 2, 3, 4, 5, 8, 64), (2, 3, 5, 7, 64, 128)))
        )
        dtype = self.rng.choice((torch.float32, torch.float32, torch.bfloat16, torch.float16))
        self.program = Program(dtype, self.rng.random() < 0.5)
        self.space: dict[str, Any] = {"torch": torch, "F": F}
        self.values: list[str] = []
        for _ in range(self.rng.randint(1, 3)):
            self.values.append(self.tensor("a", self.shape(), 1.0))

    # Parts of a program

    def size(self) -> int:
        return self.rng.choice(self.sizes)

    def shape(self) -> list[int]:
        shape = [self.size() for _ in range(self.rng.choice((1, 2, 2, 3, 3, 3, 4)))]
        if self.rng.random() < 0.4:
            shape[-1] = 64 * self.rng.choice((1, 1, 2))
        while torch.Size(shape).numel() > LARGEST:
            shape.pop(0)
        return shape

    def tensor(self, letter: str, shape: Sequence[int], scale: float) -> str:
        """A new argument."""
        name = f"{letter}{len(self.program.tensors)}"
        self.program.tensors[name] = torch.randn(tuple(shape), generator=self.generator) * scale
        self.space[name] = self.program.tensors[name].to(self.program.dtype).double()
        return name

    def mask(self, shape: Sequence[int]) -> str:
        """A mask of bools or of zeros and -inf, with rows that are masked out whole."""
        keep = torch.rand(tuple(shape), generator=self.generator) < 0.7
        keep[..., : self.rng.choice((0, 1)), :] = False
        name = f"m{len(self.program.tensors)}"
        self.program.tensors[name] = (
            keep if self.rng.random() < 0.5 else torch.zeros(shape).masked_fill(~keep, -torch.inf)
        )
        mask = self.program.tensors[name]
        self.space[name] = mask.double() if mask.is_floating_point() else mask
        return name

    def pick(self) -> str:
        """A value, the later the likelier."""
        return self.values[max(self.rng.randrange(len(self.values)) for _ in range(2))]

    def like(self, x: str) -> str:
        """A value of the shape of x."""
        return self.rng.choice([v for v in self.values if self.of(v).shape == self.of(x).shape])

    def of(self, name: str) -> Tensor:
        return self.space[name]

    def dim(self, x: str) -> int:
        n = self.of(x).ndim
        return self.rng.randrange(-n, n)

    # Steps: an expression, or statements whose last assigns "OUT"

    def step(self) -> None:
        """Add a step that works; those that don't leave nothing behind."""
        x = self.pick()
        kept = dict(self.program.tensors)
        text = self.rng.choice(STEPS)(self, x)
        if text is not None and self._works(text):
            return
        for name in self.program.tensors.keys() - kept.keys():
            del self.program.tensors[name], self.space[name]

    def _works(self, text: str) -> bool:
        out = f"v{len(self.program.lines)}"
        lines = text.replace("OUT", out).split("\n") if "OUT" in text else [f"{out} = {text}"]
        trial = {k: v.clone() if isinstance(v, Tensor) and "_(" in text else v for k, v in self.space.items()}
        try:
            exec("\n".join(lines), trial)
        except (RuntimeError, IndexError, ValueError, TypeError):
            return False
        value = trial[out]
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim == 0:
            return False
        if not 0 < value.numel() <= LARGEST or value.ndim > 6 or not torch.isfinite(value).all():
            return False
        if value.abs().max() > FINITE or value.square().mean().sqrt() < 1e-3:
            return False
        if "_(" in text:
            self.space = trial
        self.space[out] = value
        self.program.lines += lines
        self.values.append(out)
        return True

    def write(self) -> Program | None:
        for _ in range(self.rng.randint(4, 14)):
            self.step()
        made = [v for v in self.values if v[0] == "v"]
        if not made:
            return None
        chosen = {made[-1], *(self.rng.choice(made) for _ in range(self.rng.randint(0, 2)))}
        self.program.outputs = sorted(chosen)
        used = set(re.findall(r"\w+", " ".join(self.program.lines)))
        self.program.tensors = {n: t for n, t in self.program.tensors.items() if n in used}
        return self.program


Step = Callable[[Writer, str], "str | None"]


def linear(w: Writer, x: str) -> str:
    k, n = w.of(x).shape[-1], w.size()
    weight, stored = w.tensor("w", (n, k), k**-0.5), w.tensor("w", (k, n), k**-0.5)
    bias = w.tensor("w", (n,), 0.3)
    forms = [
        f"F.linear({x}, {weight}, {bias})",
        f"F.linear({x}, {weight})",
        f"F.linear({x}, {weight}) + {bias}",
        f"{x} @ {stored}",
        f"{x} @ {stored} + {bias}",
        f"{x} @ {weight}.t()",
        f"F.gelu(F.linear({x}, {weight}, {bias}))",
        f"torch.matmul({x}, {stored}[:, :])",
        f"torch.einsum('...k,nk->...n', {x}, {weight})",
        f"torch.addmm({bias}, {x}, {stored})",
        f"torch.addmm({bias}[None], {x}, {stored})",
        f"torch.addmm({bias}[:, None], {x}, {stored})",
        f"F.linear({x}, {stored}.t().contiguous(), {bias})",
        f"F.linear({x}, torch.cat([{weight}, {weight}]).chunk(2)[1], {bias}.split({n})[0])",
        f"F.linear({x}, torch.stack([{weight}, {weight}]).unbind(0)[1])",
    ]
    return w.rng.choice(forms)


def shared_weight(w: Writer, x: str) -> str | None:
    if w.of(x).ndim != 3:
        return None
    b, _, k = w.of(x).shape
    n = w.size()
    weight, along_rows = w.tensor("w", (k, n), k**-0.5), w.tensor("w", (b, n), k**-0.5)
    each = w.tensor("w", (b, k, n), k**-0.5)
    forms = [
        f"{weight}.expand({b}, -1, -1)",
        f"{along_rows}.unsqueeze(1).expand({b}, {k}, {n})",
        each,
        f"{weight}.t().contiguous().t().unsqueeze(0).expand({b}, {k}, {n})",
        f"{weight}.expand({b}, {k}, {n}).transpose(0, 1)",
        f"{weight}[:, None].expand({k}, {b}, {n}).transpose(0, 1)",
        f"{weight}[:1].expand({b}, {k}, {n})",
        f"{weight}.repeat({b}, 1).view({b}, {k}, {n})",
    ]
    return f"torch.bmm({x}, {w.rng.choice(forms)})"


def conv1d(w: Writer, x: str) -> str | None:
    if w.of(x).ndim not in (2, 3):
        return None
    channels, n = w.of(x).shape[-2], w.size()
    weight, bias = w.tensor("w", (n, channels, 3), (3 * channels) ** -0.5), w.tensor("w", (n,), 0.3)
    given = w.rng.choice((bias, "None"))
    return f"F.conv1d({x}, {weight}, {given}, stride={w.rng.choice((1, 2))}, padding=1)"


def rows(w: Writer, x: str) -> str:
    n = w.of(x).shape[-1]
    gain, shift = w.tensor("w", (n,), 1.0), w.tensor("w", (n,), 0.3)
    forms = [
        f"F.layer_norm({x}, ({n},))",
        f"F.layer_norm({x}, ({n},), {gain}, {shift})",
        f"F.layer_norm({x}, ({n},), {gain})",
        f"F.softmax({x}, {w.dim(x)})",
        f"F.softmax({x}, -1)",
        f"F.gelu({x})",
        f"F.gelu({x})",
        f"F.layer_norm({x}, {tuple(w.of(x).shape[-2:])})",
        f"torch.exp({x} - {x}.amax(-1, True)) / torch.exp({x} - {x}.amax(-1, True)).sum(-1, True)",
    ]
    return w.rng.choice(forms)


def add(w: Writer, x: str) -> str:
    shape = w.of(x).shape
    lies = [size if w.rng.random() < 0.6 else 1 for size in shape][w.rng.randrange(len(shape)) :]
    weight, whole = w.tensor("w", lies, 0.5), w.tensor("w", shape, 0.5)
    forms = [
        f"{x} + {weight}",
        f"{weight} + {x}",
        f"{x} + {whole}",
        f"{x} + {w.like(x)}",
        f"{x} + {w.like(x)}",
        f"{x}.mT + {w.like(x)}",
        f"{x}.transpose(0, {w.dim(x)}) + {w.like(x)}",
        f"{x} + {w.pick()}",
        f"{x} - {w.like(x)}",
        f"{x} + F.gelu({w.like(x)}).transpose(0, {w.dim(x)})",
        f"torch.add({x}, {w.like(x)}, alpha=0.5)",
    ]
    return w.rng.choice(forms)


def view(w: Writer, x: str) -> str:
    shape = list(w.of(x).shape)
    n, order, numel = len(shape), list(range(len(shape))), w.of(x).numel()
    w.rng.shuffle(order)
    first = w.rng.choice([d for d in range(1, numel + 1) if numel % d == 0])
    second = w.rng.choice([d for d in range(1, numel // first + 1) if (numel // first) % d == 0])
    d = w.dim(x)
    forms = [
        f"{x}.transpose({w.dim(x)}, {w.dim(x)})",
        f"{x}.permute({order})",
        f"{x}.permute({order}).contiguous()",
        f"{x}.mT",
        f"{x}.flatten({w.rng.randrange(n)})",
        f"{x}.reshape({first}, {second}, -1)",
        f"{x}.reshape({first}, -1)",
        f"{x}.unsqueeze({d})",
        f"{x}.squeeze()",
        f"{x}.reshape({w.rng.sample(shape, n)})",
        f"{x}.clone()",
        f"{x}.unflatten(-1, (-1, 64)).transpose(-2, -3)",
        f"{x}.transpose(-2, -3).flatten(-2)",
        f"{x}[None]",
        f"{x}.chunk(2, {d})[0]",
        f"{x}.select({d}, 0)",
        f"{x}.flip({d})",
        f"torch.cat([{x}, {w.like(x)}], {d})",
        f"{x}[..., ::2]",
        f"{x}[1:]",
        f"{x}.expand({w.size()}, *{tuple(shape)})",
        f"{x}.unbind({d})[-1]",
        f"{x}.roll(1, {d})",
        f"{x}.narrow({d}, 0, 1).expand_as({x})",
    ]
    return w.rng.choice(forms)


def elementwise(w: Writer, x: str) -> str:
    forms = [
        f"{x} * 0.5",
        f"{x} / 3",
        f"-{x}",
        f"{x} + 1",
        f"F.relu({x})",
        f"torch.sin({x})",
        f"torch.tanh({x})",
        f"{x}.clamp(-1, 1)",
        f"{x}.clamp(-64504, 64504)",
        f"{x} * {w.like(x)}",
        f"torch.where({x} > 0, {x}, 0.1)",
        f"F.gelu({x}, approximate='tanh')",
        f"{x}.abs()",
        f"{x} * torch.sigmoid({w.like(x)})",
    ]
    return w.rng.choice(forms)


def in_place(w: Writer, x: str) -> str:
    forms = [
        f"OUT = {x}.clone()\nOUT.add_({w.like(x)})",
        f"OUT = {x}.clone()\nOUT[0] = 0.5",
        f"OUT = F.gelu({x})\nOUT.mul_(0.5)",
        f"OUT = F.gelu({x})\nOUT.transpose(0, -1)[0].add_(1)",
        f"OUT = {x} * 1\nOUT.copy_({w.like(x)})",
        f"{x}.mul_(0.5)\nOUT = {x} + {w.like(x)}",
        f"OUT = F.gelu({x})\nOUT[..., 0:1].fill_(0.2)",
    ]
    return w.rng.choice(forms)


def attention(w: Writer, x: str) -> str | None:
    if w.of(x).shape[-1] % 64:
        return None
    shape = list(w.of(x).shape)
    others = [v for v in w.values if w.of(v).shape == w.of(x).shape]
    q, k, v = (w.rng.choice(others) for _ in range(3))
    if shape[-1] > 64:
        q, k, v = (f"{t}.unflatten(-1, (-1, 64)).transpose(-2, -3)" for t in (q, k, v))
        shape = (
            [*shape[:-2], shape[-1] // 64, shape[-2], 64] if len(shape) > 1 else [1, 1, shape[0] // 64, 64]
        )
    if len(shape) < 2:
        return None
    t = shape[-2]
    order = w.rng.sample(range(len(shape)), len(shape))
    scores, scale = f"{q} @ {k}.mT * 0.125", w.rng.choice((0.125, 0.3, 1.0))
    sdpa = f"F.scaled_dot_product_attention({q}, {k}, {v}"
    forms = [
        f"{sdpa})",
        f"{sdpa}, scale={scale})",
        f"{sdpa}, is_causal=True)",
        f"{sdpa}, attn_mask={w.mask((t, t))})",
        f"torch.softmax({scores}, -1) @ {v}",
        f"torch.softmax({scores}, -1).mT @ {v}",
        f"torch.softmax(({scores}).mT, -1) @ {v}",
        f"torch.softmax(({scores}).mT, -1).mT @ {v}",
        f"torch.softmax({scores}, -2) @ {v}",
        f"torch.softmax({q} @ {k} * 0.125, -1) @ {v}",
        f"torch.softmax({scores}, -1).permute({order}) @ {v}",
        f"torch.softmax(({scores}).transpose(0, 1), -1) @ {v}",
        f"torch.softmax({scores}, -1).transpose(0, 1) @ {v}",
        f"torch.softmax({scores}, -1) @ {v}.transpose(0, 1)",
        f"torch.softmax({scores}, -1).transpose(0, -3).transpose(0, -3) @ {v}",
        f"torch.softmax({q} @ ({k} * {scale}).mT, -1) @ {v}",
        f"torch.softmax({scores}, -1).flatten(0, 1).unflatten(0, {tuple(shape[:2])}) @ {v}",
        f"torch.softmax({scores}, -1) @ ({v} * 0.5)",
        f"F.dropout(torch.softmax({scores}, -1), 0.1, False) @ {v}",
        f"torch.softmax({scores}, -1, dtype=torch.float32).to({q}.dtype) @ {v}",
        f"torch.ops.aten._safe_softmax({scores}, -1) @ {v}",
        f"torch.ops.aten._safe_softmax({q} @ {k}.mT, -1).roll(1, -2) @ {v}",
        f"({sdpa})).transpose(-2, -3).flatten(-2)",
    ]
    if "float32" in (text := w.rng.choice(forms)) and w.program.dtype is torch.float32:
        return None  # float64 would be rounded
    return text


def product(w: Writer, x: str) -> str:
    y = w.like(x)
    return w.rng.choice(
        [f"{x} @ {y}.mT * 0.1", f"{x}.mT @ {y} * 0.1", f"{x} @ {y} * 0.1", f"{x} @ {w.pick()} * 0.1"]
    )


STEPS: list[Step] = [
    *(linear,) * 4,
    *(shared_weight,) * 2,
    conv1d,
    *(rows,) * 3,
    *(add,) * 3,
    *(view,) * 5,
    elementwise,
    in_place,
    *(attention,) * 6,
    product,
]


def programs(seed: int, cases: range) -> Iterator[tuple[int, Program]]:
    """The programs of a seed; about one number in a hundred has none."""
    with torch.no_grad():
        for case in cases:
            program = Writer(f"{seed}/{case}").write()
            if program is not None:
                yield case, program
