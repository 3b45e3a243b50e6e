"""Executes a core as mlir-aie lowered it, and says what the core program demands: two traces to compare.

An event is (kernel, operands) or (FIFO path, "acquire" or "release", count). Operands are integers, names of
static buffers, or (FIFO path, number of the buffer). Locks never block here: what is compared is which locks the
lowered core takes, how often, and which buffer it gives to which kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kernels_xdna1.description import BY_NAME
from lowering.overlay.description import Overlay, Tile
from lowering.overlay.program import Acquire, Call, Loop, Release, Statement, Switch, Word

Event = tuple[object, ...]
_STEP_LIMIT = 1_000_000


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
    blocks = _blocks(text, core)
    static = {f"%{b.name}{core.column}_{core.row - 2}": b.name for b in array.buffers}
    waiting = [list(header) for header in headers]
    memory: dict[str, list[int]] = {}
    values: dict[str, object] = {}
    events: list[Event] = []

    def read(name: str) -> object:
        name = name.split(" : ")[0].strip()
        return values.get(name, name)

    def number(name: str) -> int:
        found = read(name)
        assert isinstance(found, int), name
        return found

    def operand(name: str) -> object:
        found = read(name)
        if isinstance(found, int):
            return found
        buffer = re.fullmatch(r"%([ABC])_.*buff_(\d+)", str(found))
        return (buffer[1], int(buffer[2])) if buffer else static[str(found)]

    def jump(target: str) -> str:
        """Bind the arguments of `^bb3(%a, %b : index, i32)` and return the block's name."""
        name, given = re.fullmatch(r"(\^\w+)(?:\((.*)\))?", target.strip()).groups()  # type: ignore[union-attr]
        passed = [read(g) for g in given.split(" : ")[0].split(",")] if given else []
        values.update(zip(blocks[name][0], passed, strict=True))
        return name

    block, at = "^entry", 0
    for _ in range(_STEP_LIMIT):
        line = blocks[block][1][at]
        at += 1
        result, _, right = line.partition(" = ") if line.startswith("%") else ("", "", line)
        kind, _, rest = right.partition(" ")
        if right.startswith("aie.use_lock("):
            found = re.match(
                r"aie\.use_lock\(%([ABC])_.*lock_\d+, (AcquireGreaterEqual|Release), (%?\w+)\)", right
            )
            assert found, line
            count = number(found[3]) if found[3].startswith("%") else int(found[3])
            events.append((found[1], "release" if found[2] == "Release" else "acquire", count))
        elif kind in ("func.call", "call"):
            kernel, arguments = re.match(r"@(\w+)\((.*?)\) :", rest).groups()  # type: ignore[union-attr]
            assert kernel in BY_NAME
            if kernel == "read_header" and not waiting:
                return events
            operands = [a.strip() for a in arguments.split(",")]
            events.append((kernel, tuple(operand(a) for a in operands)))
            if kernel == "read_header":
                memory[str(read(operands[1]))] = waiting.pop(0)
        elif kind == "memref.load":
            buffer, index = re.match(r"(%\w+)\[(%?\w+)\]", rest).groups()  # type: ignore[union-attr]
            values[result] = memory[buffer][number(index)]
        elif kind == "memref.store":
            stored, buffer, index = re.match(r"(%\w+), (%\w+)\[(%?\w+)\]", rest).groups()  # type: ignore[union-attr]
            memory.setdefault(buffer, [0] * 64)[number(index)] = number(stored)
        elif kind == "arith.constant":
            values[result] = int({"true": "1", "false": "0"}.get(rest, rest.split(" ")[0]))
        elif kind in ("arith.addi", "arith.subi"):
            a, b = map(number, rest.split(" : ")[0].split(","))
            values[result] = a + b if kind == "arith.addi" else a - b
        elif kind in ("arith.index_cast", "arith.index_castui", "arith.trunci"):
            values[result] = number(rest)
        elif kind == "arith.cmpi":
            relation, a, b = (part.strip() for part in rest.split(" : ")[0].split(","))
            x, y = number(a), number(b)
            values[result] = int({"eq": x == y, "slt": x < y, "sge": x >= y}[relation])
        elif kind == "arith.select":
            condition, a, b = rest.split(" : ")[0].split(",")
            values[result] = read(a) if number(condition) else read(b)
        elif kind == "cf.br":
            block, at = jump(rest), 0
        elif kind == "cf.cond_br":
            condition, yes, no = re.match(r"(%\w+), (\^\w+(?:\(.*?\))?), (\^.*)", rest).groups()  # type: ignore[union-attr]
            block, at = jump(yes if number(condition) else no), 0
        elif kind == "cf.switch":
            key = str(number(rest.partition(" : ")[0]))
            cases = dict(re.findall(r"(default|-?\d+): (\^\w+(?:\([^)]*\))?)", rest.partition("[")[2]))
            block, at = jump(cases.get(key, cases["default"])), 0
        else:
            raise AssertionError(f"an operation that no lowered core had so far: {line}")
    raise AssertionError("the lowered core does not end")


def _blocks(text: str, core: Tile) -> dict[str, tuple[list[str], list[str]]]:
    """Basic blocks of a core by name: argument names, lines. A `cf.switch` is joined to one line."""
    lines = iter(text.splitlines())
    tile = next(
        m[1] for m in re.finditer(r"(%\w+) = aie\.tile\((\d+), (\d+)\)", text)
        if (int(m[2]), int(m[3])) == (core.column, core.row)
    )  # fmt: skip
    for line in lines:
        if f"aie.core({tile})" in line:
            break
    blocks: dict[str, tuple[list[str], list[str]]] = {"^entry": ([], [])}
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
