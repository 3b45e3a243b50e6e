"""The ops of a region: what the backend hands to every device.

A region is a straight list of ops over matrices. Every value is one clip's matrix of `rows` x `cols`
(rows: time or tokens, cols: features); a batch is a loop over clips. Heads are not a dimension: head `h` of an
attention value is the columns `64 h .. 64 h + 63`. Where a user's tensor has other axes (a mel spectrogram is
channels x frames, q/k/v have a head axis), the backend's adaptors bring it into this form at the region's border.

Parameters are named and described by shape only; their data come later, so that one lowered region serves many
checkpoints. The numerics of each op (identical on every device) are stated in its docstring; `bf16(x)` means
round to nearest even. All values are bf16 between ops; parameters of matrix products are bf16, all others fp32.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, TypeVar

_O = TypeVar("_O", bound="Op")

HEAD_SIZE = 64


@dataclass(frozen=True)
class Value:
    """One clip's matrix of `rows` x `cols`, bf16 on the device. `name` is for people."""

    id: int
    rows: int
    cols: int
    name: str = ""


@dataclass(frozen=True)
class Param:
    """A weight by name and shape (torch's own layout: linear (n, k), conv1d (out, in, kernel), vectors (n,))."""

    name: str
    shape: tuple[int, ...]


class Activation(Enum):
    """What a product does to its sums before the residual is added."""

    GELU = "gelu"  # erf form, computed in fp32

    def __str__(self) -> str:
        return self.value


# A field that is a value's id (int), a parameter's name (str), or nothing (None).
OPERAND: Mapping[str, bool] = {"operand": True}


def operands(kind: Any) -> tuple[str, ...]:
    """The names of the operand fields of `kind`, a class of ops, in order."""
    return tuple(f.name for f in fields(kind) if OPERAND.items() <= f.metadata.items())


@dataclass(frozen=True)
class Op:
    """Base: `out` is the id of the value that the op writes; `name` is for people (`layers.0.fc1`)."""

    out: int
    name: str = field(default="", kw_only=True)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Ids of the values that the op reads."""
        return tuple(v for name in operands(type(self)) if isinstance(v := getattr(self, name), int))

    @property
    def params(self) -> tuple[str, ...]:
        """Names of the parameters that the op reads."""
        return tuple(v for name in operands(type(self)) if isinstance(v := getattr(self, name), str))

    def renumbered(self: _O, ids: Mapping[int, int]) -> _O:
        """The same op over values with other ids."""
        read: dict[str, Any] = {
            n: ids[v] for n in operands(type(self)) if isinstance(v := getattr(self, n), int)
        }
        return replace(self, out=ids[self.out], **read)


@dataclass(frozen=True)
class Linear(Op):
    """out = bf16(activation(x @ weight.T + bias) + residual): products of bf16, sums, bias and activation in fp32.

    `weight` (n, k); `bias` (n,) or None. `transposed`: the parameter is stored (k, n) instead.
    `residual` is the id of a value of the output's shape, or None.
    """

    x: int = field(metadata=OPERAND)
    weight: str = field(metadata=OPERAND)
    bias: str | None = field(default=None, metadata=OPERAND)
    activation: Activation | None = None
    residual: int | None = field(default=None, metadata=OPERAND)
    transposed: bool = False


@dataclass(frozen=True)
class Conv1d(Op):
    """Whisper's convolutions: kernel 3, padding 1, stride 1 or 2, over the rows of x (rows: frames, cols: channels).

    `weight` (out, in, 3), `bias` (out,) or None; activation, residual and rounding as in `Linear`. `residual` may be a
    parameter's name instead of a value's id (the position embedding, (rows, cols), rounded to bf16).
    """

    x: int = field(metadata=OPERAND)
    weight: str = field(metadata=OPERAND)
    bias: str | None = field(default=None, metadata=OPERAND)
    stride: int = 1
    activation: Activation | None = None
    residual: int | str | None = field(default=None, metadata=OPERAND)


@dataclass(frozen=True)
class LayerNorm(Op):
    """out = bf16((x - mean) / sqrt(var + eps) * gamma + beta) over all columns, statistics in fp32.

    `gamma`, `beta`: (cols,) or None (1 and 0).
    """

    x: int = field(metadata=OPERAND)
    gamma: str | None = field(default=None, metadata=OPERAND)
    beta: str | None = field(default=None, metadata=OPERAND)
    eps: float = 1e-5


@dataclass(frozen=True)
class Softmax(Op):
    """out = bf16(softmax of each row), maximum, exponentials and sum in fp32."""

    x: int = field(metadata=OPERAND)


@dataclass(frozen=True)
class Gelu(Op):
    """out = bf16(gelu(x)), erf form, computed in fp32."""

    x: int = field(metadata=OPERAND)


@dataclass(frozen=True)
class Add(Op):
    """out = bf16(x + y). `y` may be a parameter's name, (rows, cols), rounded to bf16."""

    x: int = field(metadata=OPERAND)
    y: int | str = field(metadata=OPERAND)


@dataclass(frozen=True)
class Attention(Op):
    """out = bf16(softmax(scale * q @ k.T) @ v) per head; q (tq, 64 heads), k and v (tk, 64 heads), out like q.

    Scores in fp32, p = bf16(exp2(scale * log2(e) * s - m)) with an integer m per row (the running maximum rounded up),
    the sum of p and the output in fp32, one division at the end, then bf16. The emulator on a CPU that multiplies bf16
    itself takes the running maximum as m and sums p before its rounding: no further from float64, and one rounding
    away from this (torch_xdna/devices/emulator/native_bf16.py).
    """

    q: int = field(metadata=OPERAND)
    k: int = field(metadata=OPERAND)
    v: int = field(metadata=OPERAND)
    heads: int
    scale: float = 0.125


@dataclass(frozen=True)
class Region:
    """A part of a graph that runs on the device in one go. `ops` are in an order that respects dependencies."""

    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    params: tuple[Param, ...]
    ops: tuple[Op, ...]
    name: str = "region"

    def value(self, id: int) -> Value:
        """The value of that id; KeyError if the region has none."""
        return self._by_id[id]

    @property
    def _by_id(self) -> dict[int, Value]:
        return {v.id: v for v in self.values}

    def param(self, name: str) -> Param:
        """The parameter of that name; StopIteration if the region has none."""
        return next(p for p in self.params if p.name == name)

    def __str__(self) -> str:
        """One line per op, for people, for tests, and for `parse`."""
        lines = [f"region {self.name}"]
        lines += [f"  input {_value(self.value(i))}" for i in self.inputs]
        for op in self.ops:
            shown = []
            for f in fields(op):
                value = getattr(op, f.name)
                if f.name in ("out", "name") or value is None or value is False:
                    continue
                if f.name in operands(type(op)):
                    known = f"%{value}" if isinstance(value, int) else _param(self.param(value))
                    shown.append(f"{f.name}={known}")
                else:
                    shown.append(f"{f.name}={value}")
            label = f"{type(op).__name__} {op.name}".rstrip()
            lines.append(f"  {_value(self.value(op.out))} = {label}({', '.join(shown)})")
        return "\n".join([*lines, f"  return {', '.join(f'%{i}' for i in self.outputs)}"])

    @classmethod
    def parse(cls, text: str) -> Region:
        """The region that prints as `text`; its parameters stand in the order in which ops mention them.
        Raises ValueError with the line that is not of this form."""
        first, *lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        values, inputs, params, listed, outputs = [], [], dict[str, Param](), [], tuple[int, ...]()
        for line in lines:
            if found := re.fullmatch(rf"(?:input )?{_VALUE}(?: = (\w+)(?: (\S*))?\((.*)\))?", line):
                id, name, rows, cols, kind, label, arguments = found.groups()
                values.append(Value(int(id), int(rows), int(cols), name or ""))
                if line.startswith("input "):
                    inputs.append(int(id))
                elif kind in _KINDS:
                    listed.append(_parsed(_KINDS[kind], int(id), label or "", arguments, params))
                    continue
                else:
                    raise ValueError(f"no op of a region: {line}")
            elif line.startswith("return"):
                outputs = tuple(int(i) for i in re.findall(r"%(\d+)", line))
            else:
                raise ValueError(f"no line of a region: {line}")
        name = first.removeprefix("region ")
        return cls(tuple(values), tuple(inputs), outputs, tuple(params.values()), tuple(listed), name)


_KINDS = {kind.__name__: kind for kind in (Linear, Conv1d, LayerNorm, Softmax, Gelu, Add, Attention)}
_VALUE = r"%(\d+)(?::([^\[]*))?\[(\d+)x(\d+)\]"


def _value(v: Value) -> str:
    return f"%{v.id}{v.name and ':' + v.name}[{v.rows}x{v.cols}]"


def _param(p: Param) -> str:
    return f"{p.name}[{'x'.join(map(str, p.shape))}]"


def _parsed(kind: type[Op], out: int, name: str, arguments: str, params: dict[str, Param]) -> Op:
    """An op, and its parameters added to `params`."""
    given: dict[str, Any] = {}
    for argument in filter(None, arguments.split(", ")):
        field_name, _, text = argument.partition("=")
        if field_name in operands(kind) and text.startswith("%"):
            given[field_name] = int(text[1:])
        elif field_name in operands(kind):
            param, _, shape = text.rstrip("]").rpartition("[")
            params.setdefault(param, Param(param, tuple(int(n) for n in shape.split("x") if n)))
            given[field_name] = param
        else:
            given[field_name] = Activation(text) if field_name == "activation" else ast.literal_eval(text)
    return kind(out, name=name, **given)
