"""Wrong programs made from right ones: each mutant is one mistake that a scheduler, an encoder or a header can make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from array_regions import Prepared

from torch_xdna.lowering.commands.commands import Command, Dma, MaskWrite, Wait
from torch_xdna.lowering.commands.encode import encode
from torch_xdna.lowering.commands.registers import MM2S, S2MM
from torch_xdna.lowering.errors import LimitError
from torch_xdna.lowering.overlay.core_program import Call, Case, Loop, Release, Statement, Switch, Word
from torch_xdna.lowering.overlay.description import Overlay


@dataclass(frozen=True)
class Mutant:
    """`commands` and `header` are ignored where None; `array` likewise (then the overlay is the right one)."""

    name: str
    commands: tuple[Command, ...] | None = None
    header: tuple[int, int] | None = None  # word, new value
    array: Overlay | None = None
    words: np.ndarray | None = None

    def stream(self, prepared: Prepared) -> np.ndarray | None:
        """The instruction words, or None if the encoder refuses the mutant already."""
        if self.words is not None:
            return self.words
        if self.commands is None:
            return prepared.program.words
        try:
            return encode(self.commands, device_columns=prepared.program.columns)
        except LimitError:
            return None


def command_mutants(prepared: Prepared, every: int = 1) -> Iterator[Mutant]:
    """One change to one command; `every`: take only each n-th command."""
    commands = prepared.program.commands
    for i in range(0, len(commands), every):
        command = commands[i]
        kind = type(command).__name__.lower()
        yield Mutant(f"drop {kind} {i}", commands[:i] + commands[i + 1 :])
        yield Mutant(f"repeat {kind} {i}", commands[: i + 1] + commands[i:])
        if isinstance(command, Dma):
            for what, changed in _changed_dmas(command):
                yield Mutant(f"{what} of dma {i}", (*commands[:i], changed, *commands[i + 1 :]))
        elif isinstance(command, Wait):
            other = dataclasses.replace(command, direction=S2MM if command.direction == MM2S else MM2S)
            yield Mutant(f"other direction of wait {i}", (*commands[:i], other, *commands[i + 1 :]))
            other = dataclasses.replace(command, column=(command.column + 1) % prepared.program.columns)
            yield Mutant(f"other column of wait {i}", (*commands[:i], other, *commands[i + 1 :]))
    yield from _order_mutants(commands)


def token_id_mutants(prepared: Prepared) -> Iterator[Mutant]:
    """Each token id not set, set to another id, set behind the push that needs it, or set for another channel."""
    commands = prepared.program.commands
    for i, command in enumerate(commands):
        if not isinstance(command, MaskWrite):
            continue
        before, after = commands[:i], commands[i + 1 :]
        where = f"column {command.column} {command.address:#x}"
        yield Mutant(f"no token id, {where}", (*before, *after))
        for id in (0, 14, 26):  # after a reset; no tile's; a memtile's
            other = dataclasses.replace(command, value=id << 8)
            yield Mutant(f"token id {id}, {where}", (*before, other, *after))
        yield Mutant(f"token id behind its push, {where}", (*before, after[0], command, *after[1:]))
        other = dataclasses.replace(command, column=(command.column + 1) % prepared.program.columns)
        yield Mutant(f"token id in another column, {where}", (*before, other, *after))


def _changed_dmas(dma: Dma) -> Iterator[tuple[str, Dma]]:
    change = dataclasses.replace
    yield "next bd", change(dma, bd=(dma.bd + 1) % 16)
    yield "offset + 1 block", change(dma, offset=dma.offset + 2048)
    yield "offset + 1 word", change(dma, offset=dma.offset + 1)
    yield "other argument", change(dma, arg=1 - dma.arg)
    yield "other column", change(dma, column=(dma.column + 1) % 4)
    if dma.direction == MM2S:
        yield "other channel", change(dma, channel=1 - dma.channel)
        yield "no token", change(dma, issue_token=False)
    yield "other direction", change(dma, direction=S2MM if dma.direction == MM2S else MM2S, channel=0)
    for position in range(4):
        for delta in (-1, 1):
            sizes = list(dma.sizes)
            sizes[position] += delta
            yield f"size {3 - position} {delta:+}", change(dma, sizes=tuple(sizes))
        if dma.sizes[position] > 1 and position < 3:
            strides = list(dma.strides)
            strides[position] += 512
            yield f"stride {3 - position} + 512", change(dma, strides=tuple(strides))


def _order_mutants(commands: tuple[Command, ...]) -> Iterator[Mutant]:
    """Exchange the data of two transfers of one channel; push without waiting."""
    channels: dict[tuple, list[int]] = {}
    for i, command in enumerate(commands):
        if isinstance(command, Dma):
            channels.setdefault((command.column, command.direction, command.channel), []).append(i)
    for indices in channels.values():
        for i, j in pairwise(indices):
            first, second = commands[i], commands[j]
            assert isinstance(first, Dma) and isinstance(second, Dma)
            swapped = list(commands)
            swapped[i] = dataclasses.replace(second, bd=first.bd)
            swapped[j] = dataclasses.replace(first, bd=second.bd)
            yield Mutant(f"swap dmas {i} and {j}", tuple(swapped))
        i = indices[0]
        first = commands[i]
        assert isinstance(first, Dma)
        five = [dataclasses.replace(first, bd=(first.bd + n) % 16) for n in range(5)]
        yield Mutant(f"five times dma {i}", (*commands[:i], *five, *commands[i + 1 :]))
    last_wait = max(i for i, c in enumerate(commands) if isinstance(c, Wait))
    yield Mutant("wait first", (commands[last_wait], *commands[:last_wait], *commands[last_wait + 1 :]))


# Header words that an op reads; the others may hold anything.
READ_WORDS = {1: (0, 1, 2, 3, 6, 7), 2: (0, 1, 2, 3, 9, 10, 11), 3: (0, 1, 2, 3, 4, 5, 10, 12, 13)}


def header_mutants(prepared: Prepared) -> Iterator[Mutant]:
    """Every word of the (single) op's header, one more, one less, or something else entirely."""
    header = prepared.weights[:128].view(np.int32)
    for index in READ_WORDS[int(header[0])]:
        value = int(header[index])
        for new in (value + 1, value - 1, 7, 1 << 30):
            if new != value and -(1 << 31) <= new < 1 << 31:
                yield Mutant(f"h[{index}] = {new}", header=(index, new))


def bit_mutants(prepared: Prepared, count: int, seed: int = 0) -> Iterator[Mutant]:
    """One flipped bit of the instruction stream."""
    rng = np.random.default_rng(seed)
    words = prepared.program.words
    for position in rng.choice(32 * len(words), size=count, replace=False).tolist():
        flipped = words.copy()
        flipped[position // 32] ^= np.uint32(1 << position % 32)
        yield Mutant(f"bit {position % 32} of word {position // 32}", words=flipped)


def overlay_mutants(array: Overlay, op: str) -> Iterator[Mutant]:
    """One shorter FIFO, or one change to the core program, in what every op uses or in the case of `op`."""
    for fifo in array.fifos:
        if fifo.depth > 1:
            shrunk = dataclasses.replace(fifo, depth=fifo.depth - 1)
            fifos = tuple(shrunk if f is fifo else f for f in array.fifos)
            yield Mutant(f"{fifo.name} depth {shrunk.depth}", array=dataclasses.replace(array, fifos=fifos))
    for name, program in _program_mutants(array.program, op):
        assert isinstance(program, Loop)
        yield Mutant(name, array=dataclasses.replace(array, program=program))


def _program_mutants(root: Statement, op: str) -> Iterator[tuple[str, Statement]]:
    """Drop a release or a call, release one more, take another header word for a loop."""
    changes: list[tuple[str, Callable[[Statement], Statement | None]]] = [
        ("drop", lambda s: None if isinstance(s, Release | Call) else s),
        ("one more", lambda s: Release(s.port, s.count + 1) if isinstance(s, Release) else s),
        ("next header word", _other_word),
    ]
    used = _numbers(root, op)
    for what, change in changes:
        for number in used:
            changed, target = _apply(root, number, change)
            if target is not None:
                yield f"{what}: statement {number}: {target}", changed


def _numbers(root: Statement, op: str) -> list[int]:
    """Numbers (in order of the text) of the statements outside the switch and in the case named `op`."""
    found: list[int] = []
    number = -1

    def visit(s: Statement, used: bool) -> None:
        nonlocal number
        number += 1
        if used:
            found.append(number)
        if isinstance(s, Switch):
            for case in s.cases:
                for part in case.body:
                    visit(part, case.name == op)
        elif isinstance(s, Loop):
            for part in s.body:
                visit(part, used)

    visit(root, True)
    return found


def _other_word(s: Statement) -> Statement:
    if isinstance(s, Loop) and s.trips is not None:
        return Loop(s.variable, Word(s.trips.index % 4 + 1), s.body)
    return s


def _apply(
    root: Statement, number: int, change: Callable[[Statement], Statement | None]
) -> tuple[Statement, str | None]:
    """Apply `change` to the statement of that number (in order of the text); its name if it changed."""
    from torch_xdna.lowering.overlay.core_program import listing

    state = {"next": 0, "name": None}

    def visit(s: Statement) -> Statement | None:
        mine = state["next"]
        state["next"] += 1
        if isinstance(s, Loop):
            new: Statement | None = Loop(s.variable, s.trips, body(s.body))
        elif isinstance(s, Switch):
            new = Switch(s.on, tuple(Case(c.value, c.name, body(c.body)) for c in s.cases))
        else:
            new = s
        if mine == number:
            replaced = change(s)
            if replaced is not s:
                state["name"] = listing(s)[0]
                return replaced
        return new

    def body(parts: tuple[Statement, ...]) -> tuple[Statement, ...]:
        return tuple(new for part in parts if (new := visit(part)) is not None)

    result = visit(root)
    return (root if result is None else result), state["name"] and str(state["name"])
