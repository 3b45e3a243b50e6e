"""From the operations of one call, as the counting build keeps them, to its loops and straight code with their cycles.

The sources mark each loop's trips (`TRIP("name")`) and each function that is not inlined (`INSIDE("name")`). What the
compiler does on the way is done here, in this order: constants are made once per loop, halves of registers and
registers of either file cost nothing, a bf16 load that is only widened and a rounded result that is only stored are one
operation each (`vlda.conv`, `vst.conv`). A load may not pass a store of the trip before through the same operand.

Cycles: each loop takes SETUP + length + (trips - 1) II, as mlir-aie's authors found (skills/: "bundles + 5 +
(trips-1) x II"); a loop that holds loops takes TURN more per trip.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch_xdna.kernels_xdna1 import schedule
from torch_xdna.kernels_xdna1.schedule import Schedule, Unit

SETUP, TURN, CALL = 5, 6, 14
"""Cycles: of a loop's counters; of an outer loop's branch, with its delay slots; of a call inside a kernel (jump and
return of 6 each, and the registers that it keeps)."""

ISSUE_BYTES, EMPTY_BYTES, FUNCTION_BYTES = 4, 2, 80
"""Of code: what an issue takes in a bundle (16 bytes hold all six), an empty bundle, a function's entry, exit and
addresses. Overlapped trips before and after a loop hold each issue once per stage. How that compares with
sizes that are known: `precedents.sizes`."""

PIPELINED_LOSS, STRAIGHT_LOSS = 1.25, 1.0
"""What the compiler's schedule takes of ours: factors of overlapped loops and of straight code, fitted on traced loops
(`python -m torch_xdna.kernels_xdna1 precedents`)."""

MOST_HOISTED = 256
"""Bytes of operands that a loop's trips share and that are read once before it: what is more is read in each trip, as
the sources see to (a pointer that is walked around is not known to come back)."""

(LOAD, STORE, MOVE, MULTIPLY, ROUND, WIDEN, COPY, CONSTANT, MASK, NAME, ACCUMULATOR) = range(11)
TRIP, TRIP_END, INSIDE, INSIDE_END, COMPARE = range(11, 16)


class _Operation(ctypes.Structure):
    _fields_ = [
        ("what", ctypes.c_int32), ("n", ctypes.c_int32), ("bytes", ctypes.c_int32), ("region", ctypes.c_int32),
        ("ins", ctypes.c_int32 * 4), ("at", ctypes.c_uint64),
    ]  # fmt: skip


@dataclass(slots=True)
class Operation:
    """See host_api/aie_api/host.hpp."""

    number: int
    what: int
    n: int
    bytes: int
    region: int
    ins: tuple[int, ...]
    at: int


@dataclass
class Code:
    """Straight operations, loops and called functions, in order."""

    name: str = ""
    parts: list[Operation | Loop | Code] = field(default_factory=list)

    @property
    def is_straight(self) -> bool:
        return all(isinstance(part, Operation) for part in self.parts)

    def operations(self) -> Iterator[Operation]:
        for part in self.parts:
            if isinstance(part, Operation):
                yield part


@dataclass
class Loop:
    """The trips of one loop, one after another."""

    name: str
    trips: list[Code] = field(default_factory=list)


@dataclass(frozen=True)
class LoopTime:
    """A loop without loops inside, `trips` at a time and entered `times` times."""

    name: str
    trips: int
    times: int
    schedule: Schedule
    cycles: float
    slots: dict[str, float]


def trace(library: ctypes.CDLL) -> list[Operation]:
    """The operations of this thread's last call of a counting build."""
    count = ctypes.c_int32()
    library.host_trace.restype = ctypes.POINTER(_Operation)
    library.host_trace.argtypes = (ctypes.POINTER(ctypes.c_int32),)
    found = library.host_trace(ctypes.byref(count))
    return [
        Operation(i, o.what, o.n, o.bytes, o.region, tuple(o.ins[:3]), o.at)
        for i, o in enumerate(found[: count.value])
    ]


def structure(operations: Sequence[Operation]) -> Code:
    """Operations in their loops and functions."""
    root = Code()
    stack = [root]
    for operation in operations:
        here = stack[-1]
        if operation.what in (TRIP, INSIDE):
            name = ctypes.string_at(operation.at).decode()
            code = Code(name)
            if operation.what == INSIDE:
                here.parts.append(code)
            else:
                last = here.parts[-1] if here.parts else None
                if not isinstance(last, Loop) or last.name != name:
                    last = Loop(name)
                    here.parts.append(last)
                last.trips.append(code)
            stack.append(code)
        elif operation.what in (TRIP_END, INSIDE_END):
            stack.pop()
        else:
            here.parts.append(operation)
    return root


class Timing:
    """Cycles of a call's code. `loops`: every innermost loop met. `meets`: in how many cycles two regions of
    memory (see `Operation.region`) are reached at once."""

    def __init__(
        self,
        operations: Sequence[Operation],
        pipelined: float = PIPELINED_LOSS,
        straight: float = STRAIGHT_LOSS,
    ) -> None:
        self.operations, self.losses = operations, (pipelined, straight)
        self.found: dict[tuple[str, int], list[LoopTime]] = {}
        self.written: dict[tuple[str, str], float] = {}
        self.known: dict[tuple[object, ...], tuple[Schedule, dict[str, float]]] = {}
        self.straight = 0.0
        self.meets: Counter[tuple[int, int]] = Counter()
        self.inside = [""]
        self.cycles = self._code(structure(operations))

    @property
    def loops(self) -> list[LoopTime]:
        result = []
        for (name, trips), times in self.found.items():
            worst = max(times, key=lambda time: time.cycles)
            total = sum(time.cycles for time in times)
            result.append(LoopTime(name, trips, len(times), worst.schedule, total, worst.slots))
        return result

    def _code(self, code: Code) -> float:
        total, run, runs = 0.0, [], 0
        for part in [*code.parts, None]:
            if isinstance(part, Operation):
                run.append(part)
                continue
            if run:
                runs += 1
                total += self._straight(f"{code.name} {runs}", run)
                run = []
            if isinstance(part, Loop):
                total += self._loop(part)
            elif part is not None:
                self.inside.append(part.name)
                total += CALL + self._code(part)
                self.inside.pop()
        return total

    def _write(self, place: str, placed: Schedule, slots: dict[str, float]) -> None:
        key, issues = (self.inside[-1], place), sum(slots.values())
        empty = max(0.0, placed.ii - issues) * (2 * placed.stages - 1)
        size = ISSUE_BYTES * issues * placed.stages + EMPTY_BYTES * empty
        self.written[key] = max(self.written.get(key, 0.0), size)

    def _meet(self, placed: Schedule, trips: int) -> None:
        for pair, count in placed.meets:
            self.meets[pair] += count * trips

    @property
    def code(self) -> dict[str, int]:
        """Estimated bytes by function, "" for the kernel's own."""
        found: dict[str, int] = {}
        for (function, _), size in self.written.items():
            found[function] = found.get(function, FUNCTION_BYTES) + round(size)
        return found

    def _straight(self, name: str, run: Sequence[Operation]) -> float:
        key = ("straight", *_signature(run))
        if key not in self.known:
            units, _ = lower(run, self.operations)
            self.known[key] = schedule.block(units).lost(*self.losses), schedule.slot_counts(units)
        self._write(name, *self.known[key])
        self.straight += self.known[key][0].length
        self._meet(self.known[key][0], 1)
        return self.known[key][0].length

    def _loop(self, loop: Loop) -> float:
        trips = loop.trips
        if not all(trip.is_straight for trip in trips):
            return SETUP + sum(TURN + self._code(trip) for trip in trips)
        bodies = [list(trip.operations()) for trip in trips]
        if not any(bodies):
            return 0.0
        if len(trips) == 1:
            return self._straight(loop.name, bodies[0])
        signatures = [_signature(body) for body in bodies]
        usual = Counter(signatures).most_common(1)[0][0]
        which = next((i for i, s in enumerate(signatures) if i and s == usual), signatures.index(usual))
        key = ("loop", len(trips), *usual)
        if key not in self.known:
            units, _ = lower(bodies[which], self.operations, bodies[max(0, which - 2) : which])
            placed = schedule.modulo(units, len(trips)).lost(*self.losses)
            self.known[key] = placed, schedule.slot_counts(units)
        found, slots = self.known[key]
        self._write(f"loop {loop.name}", found, slots)
        self._meet(found, len(trips))
        cycles = SETUP + found.length + (len(trips) - 1) * found.ii
        self.found.setdefault((loop.name, len(trips)), []).append(
            LoopTime(loop.name, len(trips), 1, found, cycles, slots)
        )
        return cycles


def _signature(body: Sequence[Operation]) -> tuple[int, ...]:
    first = body[0].number if body else 0
    return tuple(
        x for o in body for x in (o.what, o.n, o.region, *(i - first if i >= first else -1 for i in o.ins))
    )


def lower(
    body: Sequence[Operation], operations: Sequence[Operation], before: Sequence[Sequence[Operation]] = ()
) -> tuple[list[Unit], dict[int, list[int]]]:
    """Units of straight code, or of a loop's trip with the trips `before` it (the last one last), and which units
    each operation became."""
    return _Lowering(body, operations, before).run()


class _Lowering:
    def __init__(
        self,
        body: Sequence[Operation],
        operations: Sequence[Operation],
        before: Sequence[Sequence[Operation]],
    ) -> None:
        self.body, self.all, self.loop = body, operations, bool(before)
        self.inside = {o.number for o in body}
        self.units: list[Unit] = []
        self.made: dict[int, list[int]] = {}
        self.held: dict[tuple[object, str], int] = {}
        self.earlier: dict[
            int, tuple[int, int]
        ] = {}  # an earlier trip's operation: (the same one here, distance)
        for distance, trip in enumerate(reversed(before), 1):
            if len(trip) == len(body):
                self.earlier |= {old.number: (new.number, distance) for old, new in zip(trip, body)}
        self.previous = before[-1] if before and len(before[-1]) == len(body) else None
        self.uses: dict[int, list[Operation]] = {}
        for o in body:
            for i in {leaf for source in o.ins if source >= 0 for leaf in self._leaves(source)}:
                self.uses.setdefault(self.earlier.get(i, (i, 0))[0], []).append(o)
        self.carried_uses = {
            self.earlier[i][0]
            for o in body
            for s in o.ins
            if s >= 0
            for i in self._leaves(s)
            if i in self.earlier
        }
        self.written = {o.region for o in body if o.what == STORE}
        self.fixed = self._invariants() if self.loop else set()
        self.canonical: dict[tuple[object, ...], int] = {}
        self.late: list[tuple[int, int, int, int]] = []

    def _leaves(self, number: int) -> list[int]:
        o = self.all[number]
        if o.what in (NAME, ACCUMULATOR):
            return [leaf for i in o.ins if i >= 0 for leaf in self._leaves(i)]
        return [number]

    def _invariants(self) -> set[int]:
        fixed: set[int] = set()
        old = dict(zip((o.number for o in self.body), self.previous or ()))
        steady = [
            o for o in self.body
            if o.what == LOAD and o.region >= 0 and o.region not in self.written
            and o.number in old and old[o.number].at == o.at
        ]  # fmt: skip
        if sum(o.bytes for o in steady) > MOST_HOISTED:
            steady = []
        fixed |= {o.number for o in steady}
        for o in self.body:
            if o.what == CONSTANT or (o.what == LOAD and o.region < 0):
                fixed.add(o.number)
            elif o.what in (MOVE, MULTIPLY, ROUND, WIDEN, COPY, COMPARE, MASK):
                sources = [leaf for i in o.ins if i >= 0 for leaf in self._leaves(i)]
                if sources and all(s in fixed or self._is_outside(s) for s in sources):
                    fixed.add(o.number)
        return fixed

    def _is_outside(self, number: int) -> bool:
        return number not in self.inside and number not in self.earlier

    def run(self) -> tuple[list[Unit], dict[int, list[int]]]:
        for o in self.body:
            if o.number in self.fixed or o.what in (NAME, ACCUMULATOR):
                continue
            self._operation(o)
        for unit, source, latency, distance in self.late:
            for s in self.made.get(source, ()):
                self.units[unit].needs.append((s, latency, distance))
        self._memory()
        return self.units, self.made

    def _operation(self, o: Operation) -> None:
        users = self.uses.get(o.number, [])
        if not users and o.what not in (STORE, MASK) and o.number not in self.carried_uses:
            return  # nobody takes it: the compiler leaves it out
        if o.what == CONSTANT or (o.what == LOAD and o.region < 0):  # in straight code: made once
            key = (o.what, o.at, o.bytes)
            if key in self.canonical:
                self.made[o.number] = self.made[self.canonical[key]]
                return
            self.canonical[key] = o.number
        if o.what == WIDEN and self._is_fused_widen(o):
            self.made[o.number] = self.made[self._leaves(o.ins[0])[0]]
            return
        if o.what == ROUND and self._is_fused_round(o):
            return
        slots, file, size = self._place(o, users)
        count = o.n
        sources = [(position, self._leaves(i)) for position, i in enumerate(o.ins) if i >= 0]
        if o.what == STORE:
            leaves = sources[0][1] if sources else []
            if leaves and all(
                self.all[i].what == ROUND and i not in self.made and i in self.inside for i in leaves
            ):
                position = 0
                sources = [
                    (
                        position,
                        [j for i in leaves for s in self.all[i].ins if s >= 0 for j in self._leaves(s)],
                    )
                ]
        first = len(self.units)
        for _ in range(count):
            self.units.append(Unit(_names[o.what], slots, [], size, file, o.region))
        self.made[o.number] = list(range(first, first + count))
        if o.what == LOAD and count > 1:  # a wide load's parts step one pointer, once a cycle
            for unit in range(first + 1, first + count):
                self.units[unit].needs.append((unit - 1, 1, 0))
            if self.loop:
                self.units[first].needs.append((first + count - 1, 1, 1))
        for position, leaves in sources:
            self._need(o, first, count, position, leaves)

    def _need(self, o: Operation, first: int, count: int, position: int, leaves: Sequence[int]) -> None:
        parts: list[tuple[int, int, int]] = []  # source operation's unit or held unit, latency, distance
        for leaf in leaves:
            latency = self._latency(self.all[leaf], o, position)
            if leaf in self.made:
                parts += [(unit, latency, 0) for unit in self.made[leaf]]
            elif leaf in self.earlier:
                number, distance = self.earlier[leaf]
                for j in range(count):
                    self.late.append((first + j, number, latency, distance))
            elif self.loop:
                self._hold(o, leaf, position, range(first, first + count))
        if not parts:
            return
        share = len(parts) // count if count and len(parts) % count == 0 else 0
        for j in range(count):
            self.units[first + j].needs += parts[j * share : (j + 1) * share] if share else parts

    def _hold(self, o: Operation, leaf: int, position: int, users: Sequence[int]) -> None:
        source = self.all[leaf]
        accumulators = (o.what == MULTIPLY and position == 0) or (o.what == MULTIPLY and o.ins[2] < 0)
        file = "accumulator" if accumulators else "vector"
        if source.what in (COMPARE, MASK):
            return
        key = (
            (source.what, source.at, source.bytes)
            if source.what == CONSTANT or (source.region < 0 and source.what == LOAD)
            else leaf,
            file,
        )
        if key not in self.held:
            size = 32 if source.what == ROUND else 64
            self.held[key] = len(self.units)
            self.units.append(Unit("held", (), [], size, file))
        for user in users:
            self.units[user].needs.append((self.held[key], 0, 0))

    def _place(self, o: Operation, users: Sequence[Operation]) -> tuple[tuple[str, ...], str, int]:
        """Slots, file and bytes of each unit."""
        if o.what == LOAD:
            sums = any(self._takes_sums(user, o.number) for user in users)
            file = "accumulator" if sums else "vector"
            size = 64 if sums and any(u.what == WIDEN for u in users) else 32
            return (("load a",) if sums else ("load b", "load a")), file, size
        if o.what == STORE:
            return ("store",), "", 0
        if o.what == ROUND:
            return ("store",), "vector", 32
        if o.what == MULTIPLY:
            return ("multiply",), "accumulator", 64
        if o.what == WIDEN:
            return ("move",), "accumulator", 64
        if o.what == COPY:
            source = self.all[self._leaves(o.ins[0])[0]].what if o.ins[0] >= 0 else MOVE
            return ("move",), ("vector" if source in (MULTIPLY, WIDEN) else "accumulator"), 64
        if o.what == COMPARE:
            return ("move",), "", 0
        if o.what == MASK:
            return ("scalar",), "", 0
        return ("move",), "vector", min(64, max(32, o.bytes // max(1, o.n)))

    def _takes_sums(self, user: Operation, number: int) -> bool:
        """Whether `user` wants a loaded value in an accumulator."""
        if user.what == MULTIPLY:
            leaves = self._leaves(user.ins[0]) if user.ins[0] >= 0 else []
            return user.ins[2] < 0 or number in [self.earlier.get(i, (i, 0))[0] for i in leaves]
        return (user.what == WIDEN and self._is_fused_widen(user)) or user.what == ROUND

    def _is_fused_widen(self, o: Operation) -> bool:
        leaves = self._leaves(o.ins[0]) if o.ins[0] >= 0 else []
        return (
            len(leaves) == 1 and leaves[0] in self.inside and self.all[leaves[0]].what == LOAD
            and self.all[leaves[0]].n == o.n and len(self.uses.get(leaves[0], ())) == 1
        )  # fmt: skip

    def _is_fused_round(self, o: Operation) -> bool:
        users = self.uses.get(o.number, [])
        return (
            len(users) == 1 and users[0].what == STORE
            and all(self.all[i].what == ROUND and len(self.uses[i]) == 1 for i in self._leaves(users[0].ins[0]))
        )  # fmt: skip

    def _latency(self, source: Operation, user: Operation, position: int) -> int:
        sums = user.what == MULTIPLY and (position == 0 or user.ins[2] < 0)
        if source.what == LOAD or (source.what == WIDEN and self._is_fused_widen(source)):
            return 5 if sums else 7
        if source.what == MULTIPLY:
            return 4 if sums else 6
        if source.what in (MOVE, CONSTANT, COPY):
            return 1 if user.what in (MOVE, COMPARE) or sums else 2
        if source.what == WIDEN:
            return 1 if sums else 2
        return 1 if source.what == MASK else 2

    def _memory(self) -> None:
        stores = [o for o in self.body if o.what == STORE and o.number in self.made]
        for o in self.body:
            if o.what != LOAD or o.number not in self.made or o.region < 0:
                continue
            for store in stores:
                if store.region != o.region:
                    continue
                leaves = self._leaves(store.ins[0]) if store.ins[0] >= 0 else []
                latency = (
                    3 if leaves and self.all[leaves[0]].what == ROUND and leaves[0] not in self.made else 1
                )
                overlap = store.at < o.at + o.bytes and o.at < store.at + store.bytes
                for unit in self.made[o.number]:
                    for source in self.made[store.number]:
                        if store.number < o.number and overlap:
                            self.units[unit].needs.append((source, latency, 0))
                        elif self.loop:
                            self.units[unit].needs.append((source, latency, 1))


_names = {
    LOAD: "load", STORE: "store", MOVE: "move", MULTIPLY: "multiply", ROUND: "round", WIDEN: "move", COPY: "move",
    CONSTANT: "move", MASK: "mask", COMPARE: "move",
}  # fmt: skip
