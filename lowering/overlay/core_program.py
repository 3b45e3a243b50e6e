"""The core program as data: what every core of the array does for ever, the same on each of them.

Two readers consume it: `lowering.overlay.mlir` prints it for mlir-aie, `torch_xdna.devices.array.interpreter`
turns it into a Python generator. There is no other copy of these loops. `listing` prints it for people.

An object is 8 KB of a FIFO while the core holds it. `Acquire(port, names)` waits until the core holds
`len(names)` objects of the port and names them, oldest first; `Release` gives back the oldest. Operands of a
call are names of objects, of buffers, of loop variables, the core's own `row` and `column`, or header words.

Design notes:
- Loop trips are header words, never constants of a program for one shape: one overlay runs every model.
- Attention holds two A objects during the pass over the keys and uses them as scratch (P, and the chunk of S
  with the running maximum and sum), so that no further buffer has to fit beside the accumulator. Its Q block
  waits in the C object that will become the output. That works because these buffers are the core's own
  memory.
- Objects that a core does not need (another column's residual or Q block) are acquired and released: the
  kernel compares `q` with `column`. A switch in the stream would need packet routing; a pass-over costs one
  object's time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch_xdna.kernels_xdna1.contract import HEADER_WORD, Op


@dataclass(frozen=True)
class Word:
    """Header word `index` plus a constant."""

    index: int
    plus: int = 0

    def __str__(self) -> str:
        return f"h[{self.index}]" + (f" + {self.plus}" if self.plus else "")


@dataclass(frozen=True)
class Acquire:
    port: str  # "A", "B" or "C"
    names: tuple[str, ...]


@dataclass(frozen=True)
class Release:
    port: str
    count: int = 1


@dataclass(frozen=True)
class Call:
    kernel: str
    operands: tuple[str | Word, ...]


@dataclass(frozen=True)
class Loop:
    """`body` for `variable` = 0 .. trips - 1; `trips` None is for ever."""

    variable: str
    trips: Word | None
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Case:
    value: int
    name: str
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Switch:
    """Run the case whose value equals the header word. No case: hardware goes on, the simulator refuses."""

    on: Word
    cases: tuple[Case, ...]


Statement = Acquire | Release | Call | Loop | Switch

ROW, COLUMN = "row", "column"  # the core's own place, integer operands
HEADER, ACCUMULATOR = "hdr", "acc"  # the core's static buffers

_OP, _OUTER, _INNER, _EXTRA, _PER_OUTPUT = (
    Word(HEADER_WORD[name]) for name in ("op", "outer", "inner", "extra", "per_output")
)


def _call(kernel: str, *operands: str | Word) -> Call:
    return Call(kernel, operands)


def _with(port: str, name: str, *body: Statement) -> tuple[Statement, ...]:
    """Hold one object of a port for the length of `body`."""
    return (Acquire(port, (name,)), *body, Release(port))


_GEMM = Loop(
    "o",
    _OUTER,
    (
        _call("gemm_init", "acc"),
        Loop("k", _INNER, _with("A", "a", *_with("B", "b", _call("gemm_step", "a", "b", "acc")))),
        *_with("B", "b", _call("gemm_params", "b", "acc", "hdr")),
        Loop("q", _EXTRA, _with("A", "a", _call("gemm_residual", "a", "acc", "q", COLUMN))),
        *_with("C", "c", _call("gemm_finish", "acc", "c", "hdr", "o", ROW)),
    ),
)

_ATTENTION = Loop(
    "o",
    _OUTER,
    (
        Acquire("C", ("c",)),
        Loop("q", _EXTRA, _with("A", "a", _call("attn_q", "a", "c", "q", COLUMN))),
        Acquire("A", ("a0", "a1")),
        _call("attn_q", "a0", "c", _EXTRA, COLUMN),
        _call("attn_q", "a1", "c", Word(_EXTRA.index, plus=1), COLUMN),
        _call("attn_init", "a1", "acc"),
        Loop(
            "k",
            _INNER,
            (
                *_with("B", "b", _call("attn_k", "b", "c", "a0", "a1", "acc", "hdr", "k")),
                *_with("B", "b", _call("gemm_step", "a0", "b", "acc")),
            ),
        ),
        _call("attn_finish", "acc", "a1", "c"),
        Release("C"),
        Release("A", 2),
    ),
)

_APPLY = _with("B", "b", _call("row_apply", "b", "c", "a0", "a1", "acc", "hdr", "g", "j", ROW))
_ROW_OP: tuple[Statement, ...] = (
    Acquire("A", ("a0", "a1")),
    Loop(
        "o",
        _OUTER,
        (
            Loop("k", _INNER, _with("B", "b", _call("row_stats", "b", "acc", "hdr", "k", ROW))),
            Loop("g", _EXTRA, _with("C", "c", Loop("j", _PER_OUTPUT, _APPLY))),
        ),
    ),
    Release("A", 2),
)

CORE_PROGRAM = Loop(
    "header",
    None,
    (
        *_with("A", "a", _call("read_header", "a", "hdr")),
        Switch(
            _OP,
            (
                Case(Op.GEMM, "gemm", (_GEMM,)),
                Case(Op.ATTENTION, "attention", (_ATTENTION,)),
                Case(Op.ROWS, "row op", _ROW_OP),
            ),
        ),
    ),
)


def walk(statement: Statement) -> Iterator[Statement]:
    """The statement and all inside it, in the order of the text."""
    yield statement
    inner: tuple[Statement, ...] = ()
    if isinstance(statement, Loop):
        inner = statement.body
    elif isinstance(statement, Switch):
        inner = tuple(s for case in statement.cases for s in case.body)
    for part in inner:
        yield from walk(part)


def listing(statement: Statement = CORE_PROGRAM, indent: str = "") -> list[str]:
    """The program as indented lines."""
    deeper = indent + "    "
    if isinstance(statement, Acquire):
        return [f"{indent}{', '.join(statement.names)} = acquire {statement.port}"]
    if isinstance(statement, Release):
        return [f"{indent}release {statement.count} {statement.port}"]
    if isinstance(statement, Call):
        return [f"{indent}{statement.kernel}({', '.join(map(str, statement.operands))})"]
    if isinstance(statement, Switch):
        lines = [f"{indent}switch {statement.on}:"]
        for case in statement.cases:
            lines.append(f"{indent}  case {case.value} ({case.name}):")
            lines += [line for part in case.body for line in listing(part, deeper)]
        return lines
    head = "for ever" if statement.trips is None else f"for {statement.variable} in {statement.trips}"
    return [f"{indent}{head}:", *(line for part in statement.body for line in listing(part, deeper))]
