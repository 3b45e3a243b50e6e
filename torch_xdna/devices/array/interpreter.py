"""The core program (data in `lowering.overlay.core_program`) -> a Python generator that a core runs.

The generator yields the cycles of each kernel call (a float), or the port it waits for. It is compiled from
the description once per process; `Place` says for people where a generator stands.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

from torch_xdna.lowering.overlay.core_program import (
    Acquire,
    Call,
    Loop,
    Release,
    Statement,
    Switch,
    Word,
    listing,
    walk,
)

# Trip counts above this can't come from a real program and would only keep the simulator busy.
MOST_TRIPS = 1 << 16
MOST_OBJECTS = 3  # acquired for one call: costs are tabled up to this


# Kernels whose cost depends on their operands (by position): the key into `Core.costs[kernel]`. The cost
# model's variants are named in `torch_xdna.devices.array.core`.
_VARIANTS = {
    "gemm_residual": "[{2} == {3}]",
    "attn_q": "[{2} == {3}]",
    "gemm_params": "[core.activates_in_sums({0})]",
    "gemm_finish": "[core.finish]",
    "row_stats": "[h[5]]",
    "row_apply": "[h[5]]",
}


@dataclass(frozen=True)
class Compiled:
    source: str
    statements: dict[int, str]  # line of the source -> statement, for people
    function: Any  # (core) -> generator


@functools.cache
def compile_program(program: Loop) -> Compiled:
    """Compile; the generator function takes a `torch_xdna.devices.array.core.Core`."""
    writer = _Writer()
    writer.line("def program(core):", "start")
    writer.line("    A, B, C = core.ports['A'], core.ports['B'], core.ports['C']", "start")
    writer.line("    h, row, column = core.header, core.row, core.column", "start")
    writer.line("    hdr, acc = core.buffers['hdr'], core.buffers['acc']", "start")
    for kernel in sorted({part.kernel for part in walk(program) if isinstance(part, Call)}):
        writer.line(f"    k_{kernel}, t_{kernel} = core.kernels[{kernel!r}], core.costs[{kernel!r}]", "start")
    writer.statement(program, "    ")
    scope: dict[str, Any] = {"MOST_TRIPS": MOST_TRIPS}
    exec(compile(writer.source, "<core program>", "exec"), scope)
    return Compiled(writer.source, writer.statements, scope["program"])


def where_in(compiled: Compiled, generator: Generator[Any, None, None]) -> str:
    """Where a waiting core stands: its statement, the loops around it and the op's name."""
    assert isinstance(generator, GeneratorType)
    frame = generator.gi_frame
    if frame is None:
        return "ended"
    text = compiled.statements.get(frame.f_lineno, "start")
    names = {name: value for name, value in frame.f_locals.items() if name.startswith("i_")}
    loops = ", ".join(f"{name[2:]} = {value}" for name, value in names.items())
    op = frame.f_locals.get("op", "")
    return f"{op and op + ': '}{text}" + (f" ({loops})" if loops and op else "")


class _Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.statements: dict[int, str] = {}
        self.held = {"A": 0, "B": 0, "C": 0}  # known from the nesting of the text
        self.loops: list[str] = []
        self.acquired = 0  # objects since the last call, whose locks cost time

    @property
    def source(self) -> str:
        return "\n".join(self.lines) + "\n"

    def line(self, text: str, statement: str) -> None:
        self.lines.append(text)
        self.statements[len(self.lines)] = statement

    def statement(self, s: Statement, indent: str) -> None:
        text = listing(s)[0]
        if isinstance(s, Acquire):
            self.acquire(s, indent, text)
        elif isinstance(s, Release):
            self.release(s, indent, text)
        elif isinstance(s, Call):
            operands = [self.operand(o) for o in s.operands]
            variant = _VARIANTS.get(s.kernel, "").format(*operands)
            self.line(f"{indent}k_{s.kernel}({', '.join(operands)})", text)
            self.line(f"{indent}yield t_{s.kernel}{variant}[{min(self.acquired, MOST_OBJECTS)}]", text)
            self.acquired = 0
        elif isinstance(s, Switch):
            self.switch(s, indent, text)
        else:
            self.loop(s, indent, text)

    def acquire(self, s: Acquire, indent: str, text: str) -> None:
        port, count = s.port, len(s.names)
        level, cursor = ("free", "head") if port == "C" else ("filled", "tail")
        self.line(f"{indent}if {port}.{level} < {count}:", text)
        self.line(f"{indent}    {port}.want = {count}", text)
        self.line(f"{indent}    yield {port}", text)
        for i, name in enumerate(s.names):
            index = f"{port}.{cursor}" if i == 0 else f"({port}.{cursor} + {i}) % {port}.depth"
            self.line(f"{indent}{name} = {port}.addresses[{index}]", text)
        self.held[port] = count
        self.acquired += count

    def release(self, s: Release, indent: str, text: str) -> None:
        if s.port == "C":
            received = ", ".join(f"{p}.released + {self.held[p]}" for p in "AB")
            self.line(f"{indent}C.release({s.count}, ({received}))", text)
        else:
            self.line(f"{indent}{s.port}.release({s.count})", text)
        self.held[s.port] -= s.count

    def switch(self, s: Switch, indent: str, text: str) -> None:
        for i, case in enumerate(s.cases):
            self.line(f"{indent}{'el' if i else ''}if {self.operand(s.on)} == {case.value}:", text)
            self.line(f"{indent}    op = core.op = {case.name!r}", text)
            self.line(f"{indent}    core.check_header()", text)
            for part in case.body:
                self.statement(part, indent + "    ")
        self.line(f"{indent}else:", text)
        self.line(f"{indent}    core.refuse_op({self.operand(s.on)})", text)
        self.line(f"{indent}op = core.op = ''", text)

    def loop(self, s: Loop, indent: str, text: str) -> None:
        if s.trips is None:
            self.line(f"{indent}while True:", text)
        else:
            trips = self.operand(s.trips)
            self.line(f"{indent}if {trips} > MOST_TRIPS: core.refuse_trips({s.trips.index}, {trips})", text)
            self.line(f"{indent}for i_{s.variable} in range({trips}):", text)
            self.loops.append(s.variable)
        for part in s.body:
            self.statement(part, indent + "    ")
        if s.trips is not None:
            self.loops.pop()

    def operand(self, o: str | Word) -> str:
        if isinstance(o, Word):
            return f"h[{o.index}]" + (f" + {o.plus}" if o.plus else "")
        return f"i_{o}" if o in self.loops else o
