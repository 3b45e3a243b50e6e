"""Executes a core as mlir-aie lowered it, and says what the core program demands: two traces to compare.

An event is (kernel, operands) or (FIFO path, "acquire" or "release", count). Operands are integers, names of
static buffers, or (FIFO path, number of the buffer). Locks never block here: what is compared is which locks the
lowered core takes, how often, and which buffer it gives to which kernel.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence

from torch_xdna.kernels_xdna1.description import BY_NAME
from torch_xdna.lowering.overlay.core_program import Acquire, Call, Loop, Release, Statement, Switch, Word
from torch_xdna.lowering.overlay.description import Overlay, Tile

Event = tuple[object, ...]
_Block = tuple[list[str], list[str]]  # names of its arguments, lines
_STEP_LIMIT = 1_000_000
_ARITHMETIC: dict[str, Callable[..., int]] = {
    "arith.addi": operator.add,
    "arith.subi": operator.sub,
    "arith.index_cast": int,
}


def demanded(array: Overlay, core: Tile, headers: Sequence[Sequence[int]]) -> list[Event]:
    """What a core does for these headers (64 words each), by the description alone."""
    cursors = dict.fromkeys("ABC", 0)
    depths = {path: array.port(core, path).depth for path in "ABC"}
    waiting = [list(header) for header in headers]
    words: list[int] = []

    def value(operand: str | Word, scope: dict[str, object]) -> object:
        if isinstance(operand, Word):
            return words[operand.index] + operand.plus
        return scope.get(operand, operand)

    def execute(statements: Sequence[Statement], scope: dict[str, object]) -> Iterator[Event]:
        for s in statements:
            if isinstance(s, Acquire):
                yield s.port, "acquire", len(s.names)
                for i, name in enumerate(s.names):
                    scope[name] = (s.port, (cursors[s.port] + i) % depths[s.port])
            elif isinstance(s, Release):
                yield s.port, "release", s.count
                cursors[s.port] = (cursors[s.port] + s.count) % depths[s.port]
            elif isinstance(s, Call):
                yield s.kernel, tuple(value(operand, scope) for operand in s.operands)
                if s.kernel == "read_header":
                    words[:] = waiting.pop(0)
            elif isinstance(s, Switch):
                chosen = [case.body for case in s.cases if case.value == value(s.on, scope)]
                for body in chosen:
                    yield from execute(body, dict(scope))
            else:
                trips = len(headers) if s.trips is None else value(s.trips, scope)
                assert isinstance(s, Loop) and isinstance(trips, int)
                for i in range(trips):
                    yield from execute(s.body, {**scope, s.variable: i})

    scope: dict[str, object] = {"row": core.row - 2, "column": core.column}
    return [*execute([array.program], scope), ("A", "acquire", 1)]  # then it waits for the next header


def executed(text: str, array: Overlay, core: Tile, headers: Sequence[Sequence[int]]) -> list[Event]:
    """What the lowered core (control flow as branches) does until it would read one header more."""
    static = {f"%{b.name}{core.column}_{core.row - 2}": b.name for b in array.buffers}
    machine = _Machine(_blocks(text, core), static, [list(header) for header in headers])
    for _ in range(_STEP_LIMIT):
        if machine.step():
            return machine.events
    raise AssertionError("the lowered core does not end")


class _Machine:
    """A core's registers (SSA values: integers, or names of buffers) and its integer buffers."""

    def __init__(self, blocks: dict[str, _Block], static: dict[str, str], waiting: list[list[int]]):
        self.blocks, self.static, self.waiting = blocks, static, waiting
        self.lines = iter(blocks["^entry"][1])
        self.values: dict[str, int | str] = {}
        self.memory: dict[str, list[int]] = {}
        self.events: list[Event] = []

    def step(self) -> bool:
        """Execute one operation; True where the core waits for a header that there is not."""
        line = next(self.lines)
        result, _, right = line.partition(" = ") if line.startswith("%") else ("", "", line)
        kind, rest = _match(r"([\w.]+)\s*(.*)", right)
        names = re.findall(r"%\w+", rest.split(" : ")[0])
        if kind == "aie.use_lock":
            path, action, count = _match(r"\(%([ABC])_.*lock_\d+, (\w+), (%?\w+)\)", rest)
            number = int(count) if count.isdigit() else self.number(count)
            action = {"AcquireGreaterEqual": "acquire", "Release": "release"}[action]
            self.events.append((path, action, number))
        elif kind == "func.call":
            return self.call(_match(r"@(\w+)", rest)[0], names)
        elif kind == "memref.load":
            self.values[result] = self.memory[names[0]][self.number(names[1])]
        elif kind == "memref.store":
            self.memory.setdefault(names[1], [0] * 64)[self.number(names[2])] = self.number(names[0])
        elif kind == "arith.constant":
            self.values[result] = int(_match(r"(-?\d+) :", rest)[0])
        elif kind == "arith.select":
            self.values[result] = self.read(names[1] if self.number(names[0]) else names[2])
        elif kind == "arith.cmpi":
            x, y = map(self.number, names)
            self.values[result] = int({"eq": x == y, "slt": x < y, "sge": x >= y}[rest.split(",")[0]])
        elif kind in _ARITHMETIC:
            self.values[result] = _ARITHMETIC[kind](*map(self.number, names))
        elif kind.startswith("cf."):
            self.branch(kind, rest)
        else:
            raise AssertionError(f"an operation that no lowered core had so far: {line}")
        return False

    def call(self, kernel: str, names: list[str]) -> bool:
        assert kernel in BY_NAME
        if kernel == "read_header":
            if not self.waiting:
                return True
            self.memory[str(self.read(names[1]))] = self.waiting.pop(0)
        self.events.append((kernel, tuple(map(self.operand, names))))
        return False

    def branch(self, kind: str, rest: str) -> None:
        """Go on in another block, whose arguments are bound: `^bb3(%a, %b : index, i32)`."""
        targets = re.findall(r"(?:(default|-?\d+): )?(\^\w+)(?:\(([^)]*)\))?", rest)
        chosen = targets[0]
        if kind == "cf.cond_br":
            chosen = targets[0 if self.number(_match(r"(%\w+)", rest)[0]) else 1]
        elif kind == "cf.switch":
            key = str(self.number(_match(r"(%\w+)", rest)[0]))
            chosen = next((t for t in targets if t[0] == key), targets[0])
            assert targets[0][0] == "default"
        names, lines = self.blocks[chosen[1]]
        given = [self.read(name) for name in re.findall(r"%\w+", chosen[2].split(" : ")[0])]
        self.values.update(zip(names, given, strict=True))
        self.lines = iter(lines)

    def read(self, name: str) -> int | str:
        """A value, or the name of a buffer or lock itself."""
        return self.values.get(name, name)

    def number(self, name: str) -> int:
        found = self.read(name)
        assert isinstance(found, int), name
        return found

    def operand(self, name: str) -> object:
        found = self.read(name)
        if isinstance(found, int):
            return found
        buffer = re.fullmatch(r"%([ABC])_.*buff_(\d+)", found)
        return (buffer[1], int(buffer[2])) if buffer else self.static[found]


def _match(pattern: str, text: str) -> tuple[str, ...]:
    found = re.match(pattern, text)
    assert found is not None, text
    return found.groups()


def _blocks(text: str, core: Tile) -> dict[str, _Block]:
    """Basic blocks of a core by name: argument names, lines. A `cf.switch` is joined to one line."""
    lines = iter(text.splitlines())
    tile = next(
        m[1] for m in re.finditer(r"(%\w+) = aie\.tile\((\d+), (\d+)\)", text)
        if (int(m[2]), int(m[3])) == (core.column, core.row)
    )  # fmt: skip
    for line in lines:
        if f"aie.core({tile})" in line:
            break
    blocks: dict[str, _Block] = {"^entry": ([], [])}
    name = "^entry"
    for line in lines:
        line = line.split("  //")[0].strip()
        if line.startswith("aie.end") or line.startswith("}"):
            break
        if label := re.fullmatch(r"(\^\w+)(?:\((.*)\))?:", line):
            name = label[1]
            blocks[name] = (re.findall(r"(%\w+):", label[2] or ""), [])
        elif blocks[name][1] and "cf.switch" in blocks[name][1][-1] and "]" not in blocks[name][1][-1]:
            blocks[name][1][-1] += " " + line
        else:
            blocks[name][1].append(line)
    return blocks
