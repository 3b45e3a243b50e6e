"""Places the operations of a loop's trip or of straight code in the core's issue slots: how many cycles they take.

A `Unit` is one operation of one slot. `block` lists them once, as for code that runs through; `modulo` overlaps trips,
as the compiler's pipeliner does, and finds the least initiation interval (II) at which a new trip can start. Both know
the slots, latencies and how many registers there are; what a real scheduler loses beyond that is fitted
(`precedents`).

Latencies are differences of the cycles at which operands are written and read in the compiler's own tables
(Xilinx/llvm-aie, AIE2Schedule.td): a load's result after 7, a product's after 6 and as another sum after 4, moves
after 2 and 1 between themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

SLOTS = ("multiply", "load a", "load b", "store", "move", "scalar")
DEEPEST_MII = 27
"""The compiler's pipeliner gives up on loops that need more; only a pass over the finished schedule is left."""
ACCUMULATORS, VECTORS = 18 * 64, 12 * 64
"""Bytes of the two register files: 18 accumulators and 12 vectors of 512 bits."""


@dataclass(slots=True)
class Unit:
    """One issue. `slots`: those that take it. `needs`: (unit, latency, trips before). `bytes` it leaves in `file`."""

    what: str
    slots: tuple[str, ...]
    needs: list[tuple[int, int, int]] = field(default_factory=list)
    bytes: int = 0
    file: str = ""
    region: int = -1  # the part of memory that a load or store reaches


@dataclass(frozen=True)
class Schedule:
    """`ii`: cycles from trip to trip. `length`: from a trip's first issue to its last result. `bound`: what decides.
    `mii`: the least II that slots and recurrences allow. `meets`: per trip, in how many cycles two regions of
    memory are reached at once."""

    ii: int
    length: int
    bound: str
    mii: int = 0
    pipelined: bool = True
    meets: tuple[tuple[tuple[int, int], int], ...] = ()

    def lost(self, pipelined: float, straight: float) -> Schedule:
        """With what the compiler loses: a factor for overlapped loops and one for code that runs through."""
        if self.pipelined:
            ii = max(self.ii, round(self.ii * pipelined))
            return replace(self, ii=ii, length=self.length + (ii - self.ii) * (self.stages - 1))
        return replace(self, ii=round(self.ii * straight), length=round(self.length * straight))

    @property
    def stages(self) -> int:
        return -(-self.length // self.ii) if self.pipelined and self.ii else 1


def slot_counts(units: Sequence[Unit]) -> dict[str, float]:
    """Issues per slot, loads that may take either port divided as well as they can be."""
    counts = dict.fromkeys(SLOTS, 0.0)
    either = 0
    for unit in units:
        if len(unit.slots) == 1:
            counts[unit.slots[0]] += 1
        elif unit.slots:
            either += 1
    a, b = counts["load a"], counts["load b"]
    level = max((a + b + either) / 2, a, b)
    counts["load b"] = min(b + either, level)
    counts["load a"] = a + b + either - counts["load b"]
    return counts


def resource_bound(units: Sequence[Unit]) -> tuple[int, str]:
    """Cycles of the busiest slot, and its name."""
    counts = slot_counts(units)
    busiest = max(counts, key=lambda slot: counts[slot])
    return max(1, int(-(-counts[busiest] // 1))), busiest


def block(units: Sequence[Unit]) -> Schedule:
    """Straight code: each unit as early as slots and operands allow, those with the longest way to go first."""
    if not units:
        return Schedule(0, 0, "", pipelined=False)
    height = _heights(units, 0)
    users, waiting = _users(units)
    ready = [i for i, count in enumerate(waiting) if not count]
    earliest, at, taken = [0] * len(units), [-1] * len(units), {}
    cycle, left = 0, len(units)
    while left:
        for i in sorted((i for i in ready if earliest[i] <= cycle), key=lambda i: (-height[i], i)):
            slot = next((s for s in units[i].slots if (s, cycle) not in taken), None)
            if units[i].slots and slot is None:
                continue
            if slot:
                taken[slot, cycle] = i
            at[i] = cycle
            ready.remove(i)
            left -= 1
            for user, latency in users[i]:
                earliest[user] = max(earliest[user], cycle + latency)
                waiting[user] -= 1
                if not waiting[user]:
                    ready.append(user)
        cycle += 1
    ii = max(at) + 1
    for i, unit in enumerate(units):  # a trip may start when what it takes from the one before is there
        for source, latency, distance in unit.needs:
            if distance:
                ii = max(ii, -(-(at[source] + latency - at[i]) // distance))
    mii, busiest = resource_bound(units)
    length = max(ii, max(t + _result(u) for t, u in zip(at, units)))
    bound = busiest if ii <= 1.25 * mii else "latency"
    return Schedule(ii, length, bound, mii, pipelined=False, meets=_meets(units, at, ii))


def modulo(units: Sequence[Unit], most_stages: int = 64) -> Schedule:
    """A loop's trip, overlapped with the trips after it at the least interval that slots, recurrences and registers
    allow; loops that need more than `DEEPEST_MII` are not overlapped."""
    if not units:
        return Schedule(1, 1, "", 1)
    resources, busiest = resource_bound(units)
    straight = block(units)
    recurrences = _recurrence(units, straight.ii)
    mii = max(resources, recurrences)
    bound = busiest if resources >= recurrences else "recurrence"
    if mii > DEEPEST_MII:
        return replace(straight, bound=bound if straight.ii <= 1.25 * mii else "latency", mii=mii)
    why = bound
    for ii in range(mii, straight.ii):
        for reloaded in (0, 2, 4, 8, 12, 14, 16, 17, 18, 19, 20):
            chosen = reload(units, reloaded) if reloaded else units
            if chosen is None or resource_bound(chosen)[0] > ii:
                break
            at = _place(chosen, ii)
            if at is None:
                break
            at = _later(chosen, at, ii)
            first = min(at)
            length = max(t - first + _result(u) for t, u in zip(at, chosen))
            if -(-length // ii) > max(1, most_stages):
                why = "trips"
                break
            held = _registers(chosen, at, ii)
            moves = sum(unit.slots == ("move",) for unit in chosen) + copies(chosen, at, ii)
            if held["accumulator"] <= ACCUMULATORS and held["vector"] <= VECTORS and moves <= ii:
                return Schedule(ii, length, why if ii > mii else bound, mii, meets=_meets(chosen, at, ii))
            why = "registers"
    return replace(straight, bound=why if why != bound else "latency", mii=mii)


def _meets(units: Sequence[Unit], at: Sequence[int], ii: int) -> tuple[tuple[tuple[int, int], int], ...]:
    """Pairs of regions that are reached in one cycle, and in how many cycles of a trip."""
    cycles: dict[int, list[int]] = {}
    for unit, t in zip(units, at):
        if unit.region >= 0:
            cycles.setdefault(t % max(1, ii), []).append(unit.region)
    found: Counter[tuple[int, int]] = Counter()
    for regions in cycles.values():
        found.update(combinations(sorted(regions), 2))
    return tuple(sorted(found.items()))


def reload(units: Sequence[Unit], count: int) -> list[Unit] | None:
    """The same with `count` of the values that the loop does not change read from memory at each of their uses, so that
    they take no register in between; those with the fewest uses first. None if there are fewer."""
    uses: dict[int, int] = {i: 0 for i, unit in enumerate(units) if unit.what == "held"}
    for unit in units:
        for source in {s for s, _, _ in unit.needs} & uses.keys():
            uses[source] += 1
    if len(uses) < count:
        return None
    out = set(sorted(uses, key=lambda i: uses[i])[:count])
    made: list[Unit] = []
    new: dict[int, int] = {}
    for i, unit in enumerate(units):
        if i in out:
            continue
        needs: list[tuple[int, int, int]] = []
        for source, latency, distance in unit.needs:
            if source not in out:
                needs.append((source, latency, distance))
                continue
            held = units[source]
            slots = ("load a",) if held.file == "accumulator" else ("load b", "load a")
            after = 5 if held.file == "accumulator" else 7
            for _ in range(2):
                needs.append((-len(made) - 1, after, 0))  # negative: already a number of the new list
                made.append(Unit("load", slots, [], held.bytes // 2, held.file))
        new[i] = len(made)
        made.append(Unit(unit.what, unit.slots, needs, unit.bytes, unit.file, unit.region))
    for unit in made:
        unit.needs = [(new[s] if s >= 0 else -s - 1, latency, d) for s, latency, d in unit.needs]
    return made


def copies(units: Sequence[Unit], at: Sequence[int], ii: int) -> int:
    """Moves that keep values apart from those of the next trips: registers do not rotate, so what lives longer than a
    trip is copied once per trip. Halves of 32 bytes share a register."""
    end: dict[int, int] = {}
    for i, unit in enumerate(units):
        for source, _, distance in unit.needs:
            end[source] = max(end.get(source, 0), at[i] + ii * distance)
    half = total = 0
    for i, unit in enumerate(units):
        if unit.slots and unit.file and i in end:
            times = max(0, end[i] - at[i] - _result(unit)) // ii
            if unit.bytes < 64:
                half += times
            else:
                total += times
    return total + -(-half // 2)


def _result(unit: Unit) -> int:
    return {"load": 7, "multiply": 6, "store": 1}.get(unit.what, 2)


def _users(units: Sequence[Unit]) -> tuple[list[list[tuple[int, int]]], list[int]]:
    users: list[list[tuple[int, int]]] = [[] for _ in units]
    waiting = [0] * len(units)
    for i, unit in enumerate(units):
        for source, latency, distance in unit.needs:
            if not distance:
                users[source].append((i, latency))
                waiting[i] += 1
    return users, waiting


def _heights(units: Sequence[Unit], ii: int) -> list[int]:
    """Longest way from each unit to the end of its trip (units come after what they need in the same trip)."""
    height = [_result(unit) for unit in units]
    for _ in range(3 if ii else 1):
        for i in range(len(units) - 1, -1, -1):
            for source, latency, distance in units[i].needs:
                if ii or not distance:
                    height[source] = max(height[source], min(height[i] + latency - ii * distance, 1 << 20))
        if not ii:
            break
    return height


def _recurrence(units: Sequence[Unit], most: int) -> int:
    """The least II at which no circle of needs asks a value before it is there."""
    carried = [(s, i, lat, d) for i, u in enumerate(units) for s, lat, d in u.needs if d]
    if not carried:
        return 1
    low, high = 1, max(1, most)
    while low < high:
        middle = (low + high) // 2
        if _consistent(units, middle):
            high = middle
        else:
            low = middle + 1
    return low


def _consistent(units: Sequence[Unit], ii: int) -> bool:
    earliest = [0] * len(units)
    for _ in range(24):
        changed = False
        for i, unit in enumerate(units):
            for source, latency, distance in unit.needs:
                least = earliest[source] + latency - ii * distance
                if least > earliest[i]:
                    earliest[i], changed = least, True
        if not changed:
            return True
    return False


def _place(units: Sequence[Unit], ii: int) -> list[int] | None:
    """Iterative modulo scheduling (Rau 1994): start cycles, or None if the budget runs out."""
    height = _heights(units, ii)
    out: list[list[tuple[int, int, int]]] = [[] for _ in units]
    for i, unit in enumerate(units):
        for source, latency, distance in unit.needs:
            out[source].append((i, latency, distance))
    at: list[int | None] = [None] * len(units)
    used: dict[tuple[str, int], int] = {}
    slot_of: list[str] = [""] * len(units)
    tried = [-1] * len(units)
    todo = set(range(len(units)))
    budget = 12 * len(units) + 50

    def drop(i: int) -> None:
        if slot_of[i]:
            del used[slot_of[i], at[i] % ii]  # type: ignore[operator]
        at[i], slot_of[i] = None, ""
        todo.add(i)

    while todo:
        budget -= 1
        if budget < 0:
            return None
        i = max(todo, key=lambda i: (height[i], -i))
        unit = units[i]
        start = 0
        for source, latency, distance in unit.needs:
            if (t := at[source]) is not None and source != i:
                start = max(start, t + latency - ii * distance)
        chosen, slot = None, ""
        for t in range(start, start + ii):
            free = next((s for s in unit.slots if (s, t % ii) not in used), None)
            if not unit.slots or free is not None:
                chosen, slot = t, free or ""
                break
        if chosen is None:
            chosen = max(start, tried[i] + 1)
            slot = unit.slots[-1]
            drop(used[slot, chosen % ii])
        tried[i] = chosen
        at[i], slot_of[i] = chosen, slot
        todo.discard(i)
        if slot:
            used[slot, chosen % ii] = i
        for user, latency, distance in out[i]:
            if user != i and (t := at[user]) is not None and t < chosen + latency - ii * distance:
                drop(user)
    return [t if t is not None else 0 for t in at]


def _later(units: Sequence[Unit], at: list[int], ii: int) -> list[int]:
    """Each unit as late as what takes its result allows, where that leaves fewer bytes in registers."""
    at = list(at)
    users: list[list[tuple[int, int, int]]] = [[] for _ in units]
    for i, unit in enumerate(units):
        for source, latency, distance in unit.needs:
            users[source].append((i, latency, distance))
    used: set[tuple[str, int]] = set()
    slot_of = [""] * len(units)
    for i in sorted(range(len(units)), key=lambda i: len(units[i].slots)):
        if units[i].slots:
            slot_of[i] = next((s for s in units[i].slots if (s, at[i] % ii) not in used), "")
            if not slot_of[i]:
                return at  # the two ports were dealt otherwise: left as it is
            used.add((slot_of[i], at[i] % ii))
    for i in sorted(range(len(units)), key=lambda i: -at[i]):
        unit = units[i]
        ends = [
            s
            for s, _, _ in unit.needs
            if units[s].slots and all(u == i or at[u] <= at[i] for u, _, _ in users[s])
        ]
        if not users[i] or not slot_of[i] or sum(map(_weight, (units[s] for s in set(ends)))) > _weight(unit):
            continue
        latest = min((at[u] - latency + ii * d for u, latency, d in users[i] if u != i), default=at[i])
        used.discard((slot_of[i], at[i] % ii))
        for t in range(min(latest, at[i] + 4 * ii), at[i] - 1, -1):
            slot = next((s for s in unit.slots if (s, t % ii) not in used), None)
            if slot and all(t >= at[s] + latency - ii * d for s, latency, d in unit.needs if s != i):
                at[i], slot_of[i] = t, slot
                break
        used.add((slot_of[i], at[i] % ii))
    return at


def _weight(unit: Unit) -> int:
    """Bytes, those of the smaller file twice."""
    return unit.bytes * (2 if unit.file == "vector" else 1)


def _registers(units: Sequence[Unit], at: Sequence[int], ii: int) -> dict[str, int]:
    """Bytes held in each file at the fullest of the II cycles; units without needs and slots are held all the time."""
    held = {"accumulator": [0] * ii, "vector": [0] * ii}
    end: dict[int, int] = {}
    for i, unit in enumerate(units):
        for source, _, distance in unit.needs:
            end[source] = max(end.get(source, 0), at[i] + ii * distance)
    for i, unit in enumerate(units):
        if not unit.file or i not in end:
            continue
        if not unit.slots:  # an invariant
            for cycle in range(ii):
                held[unit.file][cycle] += unit.bytes
            continue
        for t in range(at[i] + _result(unit), end[i] + 1):
            held[unit.file][t % ii] += unit.bytes
    return {name: max(cycles) for name, cycles in held.items()}
