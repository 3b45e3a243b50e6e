"""A region as stages that run row chunk by row chunk: which ops go together, which values must be complete.

Most ops need one row of their input to make one row of their output. Only attention (its keys and values) and
conv1d (its neighbours) need more. So a region is cut into levels, and nothing but the end of a level is a meeting
point of threads: inside it, a chunk of rows passes through all ops on its own, with its temporaries in cache. An
encoder of n layers has n + 3 levels: input, conv1, conv2 up to the first q, k, v, and per layer attention up to the
next q, k, v. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lowering import ops as ir

HALO = 1  # rows of zeros before and after a stored value: the padding of conv1d


@dataclass(frozen=True)
class Load:
    """Round the region's input number `index` to bf16 and call it value `out`."""

    index: int
    out: int


@dataclass(frozen=True)
class Product:
    """Linear ops of one input as one matrix product: q, k and v become a single pass over their input.

    Several ops only if none has GELU or a residual. `key` names the packed weight.
    """

    parts: tuple[ir.Linear, ...]

    @property
    def key(self) -> int:
        return self.parts[0].out


Step = Load | Product | ir.Conv1d | ir.LayerNorm | ir.Softmax | ir.Gelu | ir.Add | ir.Attention


@dataclass
class Stage:
    """Steps that a chunk of `rows` rows of one clip takes without waiting for another chunk."""

    rows: int
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Store:
    """A value that outlives its chunk. Values with the same store never live at the same time.

    heads == 0: bf16 (rows + 2 HALO, cols), the halo zero. Otherwise fp32 (heads, rows, 64), the keys or values of
    an attention: fp32 because that is what the matrix product reads, by head because its columns are then dense.
    """

    rows: int
    cols: int
    heads: int
    slot: int


@dataclass(frozen=True)
class Plan:
    """`levels`: what runs one after the other, each a list of stages. `stored`, `by_head`: value id -> its store."""

    region: ir.Region
    levels: tuple[tuple[Stage, ...], ...]
    stored: dict[int, Store]
    by_head: dict[int, Store]

    @property
    def flops(self) -> int:
        """Multiplications and additions of one clip's matrix products."""
        return sum(_flops(self.region, op) for op in self.region.ops)

    @property
    def folds(self) -> bool:
        """Whether clips can be put below each other as if they were rows of one clip."""
        positions = (getattr(op, "y", None) for op in self.region.ops)
        return len(self.levels) == len(self.levels[0]) == 1 and not any(isinstance(y, str) for y in positions)

    def __str__(self) -> str:
        lines = []
        for number, stages in enumerate(self.levels):
            for stage in stages:
                kinds = " ".join(_describe(step) for step in stage.steps)
                lines.append(f"{number} rows {stage.rows}: {kinds}")
        return "\n".join(lines)


def make_plan(region: ir.Region) -> Plan:
    """Cut a region into levels, merge products of one input, and give every value that outlives its chunk a store."""
    steps = _merge([*(Load(i, v) for i, v in enumerate(region.inputs)), *region.ops])
    level = _levels(steps)
    stages: dict[tuple[int, int], Stage] = {}
    for step in steps:
        at = (level[outputs(step)[0]], region.value(outputs(step)[0]).rows)
        stages.setdefault(at, Stage(at[1])).steps.append(step)
    depth = 1 + max(level.values(), default=-1)
    levels = tuple(tuple(stage for at, stage in stages.items() if at[0] == n) for n in range(depth))
    return Plan(region, levels, *_stores(region, steps, level))


def outputs(step: Step) -> tuple[int, ...]:
    """Ids of the values that a step writes."""
    return tuple(part.out for part in step.parts) if isinstance(step, Product) else (step.out,)


def complete_inputs(step: Step) -> tuple[int, ...]:
    """Ids of the values of which a step needs all rows."""
    if isinstance(step, ir.Attention):
        return (step.k, step.v)
    return (step.x,) if isinstance(step, ir.Conv1d) else ()


def row_inputs(step: Step) -> tuple[int, ...]:
    """Ids of the values of which a step needs the rows that it writes."""
    if isinstance(step, Load):
        return ()
    if isinstance(step, ir.Attention):
        return (step.q,)
    if isinstance(step, ir.Conv1d):
        return step.inputs[1:]
    return step.parts[0].inputs if isinstance(step, Product) else step.inputs


def _merge(steps: list[Load | ir.Op]) -> list[Step]:
    """Replace Linear by Product; plain ones of the same input join the first of them, since they need nothing else."""
    plain: dict[int, int] = {}
    merged: list = []
    for step in steps:
        if not isinstance(step, ir.Linear):
            merged.append(step)
        elif step.gelu or step.residual is not None:
            merged.append(Product((step,)))
        elif step.x in plain:
            at = plain[step.x]
            merged[at] = Product((*merged[at].parts, step))
        else:
            plain[step.x] = len(merged)
            merged.append(Product((step,)))
    return merged


def _levels(steps: list[Step]) -> dict[int, int]:
    level: dict[int, int] = {}
    for step in steps:
        after = [level[v] + 1 for v in complete_inputs(step)] + [level[v] for v in row_inputs(step)]
        level.update(dict.fromkeys(outputs(step), max(after, default=0)))
    return level


def _stores(
    region: ir.Region, steps: list[Step], level: dict[int, int]
) -> tuple[dict[int, Store], dict[int, Store]]:
    """Stores for what is read in a later level than it was written in; a slot is free again after its last reader."""
    last_row_use: dict[int, int] = {}
    last_head_use: dict[int, int] = {}
    heads: dict[int, int] = {}
    for step in steps:
        now = level[outputs(step)[0]]
        if isinstance(step, ir.Attention):
            for v in (step.k, step.v):
                last_head_use[v], heads[v] = now, step.heads
        for v in (*row_inputs(step), *(complete_inputs(step) if isinstance(step, ir.Conv1d) else ())):
            if now > level[v]:
                last_row_use[v] = now
    stored = _assign_slots(region, level, last_row_use, {})
    return stored, _assign_slots(region, level, last_head_use, heads)


def _assign_slots(
    region: ir.Region, first: dict[int, int], last: dict[int, int], heads: dict[int, int]
) -> dict[int, Store]:
    busy_until: dict[tuple[int, int, int], list[int]] = {}
    stores = {}
    for v in sorted(last, key=lambda v: first[v]):
        value = region.value(v)
        kind = (value.rows, value.cols, heads.get(v, 0))
        slots = busy_until.setdefault(kind, [])
        slot = next((i for i, until in enumerate(slots) if until < first[v]), len(slots))
        slots[slot : slot + 1] = [last[v]]
        stores[v] = Store(*kind, slot)
    return stores


def chunks(rows: int, workers: int, largest: int = 384, smallest: int = 64) -> Iterator[tuple[int, int]]:
    """[first, last) rows of each chunk: near `largest`, and as many as keep all workers busy if that is not too many.

    384 rows is where a product of one thread is as efficient as it gets and its largest temporary (fp32, 2048
    columns for base) stays at 3 MB.
    """
    count = -(-rows // largest)
    even = -(-count // workers) * workers
    if rows >= even * smallest:
        count = even
    size = -(-rows // max(count, 1))
    return ((r, min(r + size, rows)) for r in range(0, rows, max(size, 1)))


def _flops(region: ir.Region, op: ir.Op) -> int:
    out = region.value(op.out)
    if isinstance(op, ir.Linear):
        return 2 * out.rows * out.cols * region.value(op.x).cols
    if isinstance(op, ir.Conv1d):
        return 2 * out.rows * out.cols * 3 * region.value(op.x).cols
    if isinstance(op, ir.Attention):
        return 4 * out.rows * out.cols * region.value(op.k).rows
    return 0


def _describe(step: Step) -> str:
    if isinstance(step, Product):
        names = "+".join(f"%{part.out}" for part in step.parts)
        return f"product({names}{', gelu' if step.parts[0].gelu else ''})"
    return f"{type(step).__name__.lower()}(%{step.out})"
