"""A region as stages that run chunk by chunk of rows: which ops go together, and how long each value must live.

Most ops need one row of their input to make one row of their output. Only attention (its keys and values) and
conv1d (its neighbours) need more. So a region is cut into levels, and nothing but the end of a level is a
meeting point of threads: inside it a chunk of rows passes through all ops on its own. An encoder of n layers has
n + 3 levels: input; conv1; conv2 up to the first q, k, v; per layer attention up to the next q, k, v.

Inside a chunk, matrix products want many rows at once (they repack their weight each time); all other ops can run
on pieces of it, which bounds their temporaries. So a stage is a list of phases: one product over the whole chunk,
then everything up to the next product's operand, piece by piece. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from torch_xdna.lowering import ops as ir

HALO = 1  # rows of zeros before and after a stored value: the padding of conv1d


@dataclass(frozen=True)
class Load:
    """Round the region's input number `index` to bf16 and call it value `out`."""

    index: int
    out: int


@dataclass(frozen=True)
class Product:
    """Linear ops of one input as one matrix product: q, k and v become a single pass over their input.

    Several ops only if none has GELU or a residual.
    """

    parts: tuple[ir.Linear, ...]

    @property
    def out(self) -> int:
        return self.parts[0].out


MatrixOp = Product | ir.Conv1d | ir.Attention
RowStep = Load | ir.LayerNorm | ir.Softmax | ir.Gelu | ir.Add
Step = MatrixOp | RowStep


@dataclass
class Phase:
    """`matrix` over a whole chunk (None in a stage's first phase), then `steps` piece by piece."""

    matrix: MatrixOp | None
    steps: list[RowStep] = field(default_factory=list)


@dataclass
class Stage:
    """Phases that a chunk of one clip passes without waiting for another chunk; the clip has `rows` rows.

    `local`: values that a later phase reads; those read in their own phase alone only exist in pieces.
    """

    rows: int
    phases: list[Phase] = field(default_factory=lambda: [Phase(None)])
    local: set[int] = field(default_factory=set)

    def append(self, step: Step) -> None:
        if isinstance(step, (Product, ir.Conv1d, ir.Attention)):
            self.phases.append(Phase(step))
        else:
            self.phases[-1].steps.append(step)


@dataclass(frozen=True)
class Store:
    """A value that outlives its stage. Values with the same store never live at the same time.

    heads == 0: bf16 (rows + 2 HALO, cols), the halo zero. Otherwise (heads, rows, 64), the keys or values of an
    attention: of the dtype that the product reads, by head because its rows are then dense.
    """

    rows: int
    cols: int
    heads: int
    slot: int


@dataclass(frozen=True)
class ChunkPlan:
    """`levels`: what runs one after the other, each a list of stages. `by_row`, `by_head`: value id -> store."""

    region: ir.Region
    levels: tuple[tuple[Stage, ...], ...]
    by_row: dict[int, Store]
    by_head: dict[int, Store]
    flops: int  # multiplications and additions of one clip's matrix products

    @property
    def stages(self) -> Iterator[Stage]:
        return (stage for stages in self.levels for stage in stages)

    @property
    def folds(self) -> bool:
        """Whether clips can be put below each other as if they were rows of one clip."""
        whole = any(isinstance(p, str) for op in self.region.ops for p in (getattr(op, "y", None),))
        return len(self.levels) == len(self.levels[0]) == 1 and not whole

    def __str__(self) -> str:
        """One line per phase: level, rows, what runs over the chunk | what runs piece by piece."""
        lines = []
        for number, stage in ((n, s) for n, stages in enumerate(self.levels) for s in stages):
            for phase in stage.phases:
                steps = ", ".join(map(_describe, phase.steps))
                lines.append(f"{number} [{stage.rows}] {_describe(phase.matrix)} | {steps}".rstrip())
        return "\n".join(lines)


def make_plan(region: ir.Region) -> ChunkPlan:
    """Cut a region into levels and phases, merge products of one input, give values their places."""
    steps = _merge([*(Load(i, v) for i, v in enumerate(region.inputs)), *region.ops])
    level = _levels(steps)
    stages: dict[tuple[int, int], Stage] = {}
    for step in steps:
        at = (level[step.out], region.value(step.out).rows)
        stages.setdefault(at, Stage(at[1])).append(step)
    by_row, by_head = _stores(region, steps, level)
    for stage in stages.values():
        stage.local = _local(stage) - by_row.keys()
    depth = 1 + max(level.values(), default=-1)
    levels = tuple(tuple(stage for at, stage in stages.items() if at[0] == n) for n in range(depth))
    return ChunkPlan(region, levels, by_row, by_head, sum(_flops(region, op) for op in region.ops))


def outputs(step: Step) -> tuple[int, ...]:
    """Ids of the values that a step writes."""
    return tuple(part.out for part in step.parts) if isinstance(step, Product) else (step.out,)


def complete_inputs(step: Step) -> tuple[int, ...]:
    """Ids of the values of which a step needs all rows."""
    if isinstance(step, ir.Attention):
        return (step.k, step.v)
    return (step.x,) if isinstance(step, ir.Conv1d) else ()


def operands(step: Step | None) -> tuple[int, ...]:
    """Ids of the values whose rows must be known before a matrix step can run over its chunk."""
    if isinstance(step, Product):
        return (step.parts[0].x,)
    return (step.q,) if isinstance(step, ir.Attention) else ()


def row_inputs(step: Step | None) -> tuple[int, ...]:
    """Ids of the values that are read row by row with the step's result: residuals, inputs of row steps."""
    if step is None or isinstance(step, (Load, ir.Attention)):
        return ()
    if isinstance(step, (Product, ir.Conv1d)):
        residual = step.residual if isinstance(step, ir.Conv1d) else step.parts[0].residual
        return (residual,) if isinstance(residual, int) else ()
    return step.inputs


def chunks(rows: int, workers: int, largest: int = 768, smallest: int = 64) -> Iterator[tuple[int, int]]:
    """[first, last) rows of each chunk: near `largest`, and enough to keep all workers busy unless they get small.

    750 rows is where one thread's product is as efficient as over all rows of base (375: 10 % slower).
    """
    count = -(-rows // largest)
    even = -(-count // workers) * workers
    if rows >= even * smallest:
        count = even
    return pieces(rows, -(-rows // max(count, 1)))


def pieces(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """[first, last) of each run of at most `size` rows."""
    return ((first, min(first + size, rows)) for first in range(0, rows, max(size, 1)))


def _merge(steps: Iterable[Load | ir.Op]) -> list[Step]:
    """Linear becomes Product; a plain one joins the first plain one of its input, for it needs nothing else."""
    plain: dict[int, int] = {}
    merged: list = []
    for step in steps:
        if not isinstance(step, ir.Linear):
            merged.append(step)
        elif step.activation or step.residual is not None:
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
        after = [level[v] + 1 for v in complete_inputs(step)]
        after += [level[v] for v in (*operands(step), *row_inputs(step))]
        level.update(dict.fromkeys(outputs(step), max(after, default=0)))
    return level


def _local(stage: Stage) -> set[int]:
    """Values made in one phase and read in a later one (a product's operand is made by the phase before it)."""
    made: dict[int, int] = {}
    local = set()
    for number, phase in enumerate(stage.phases):
        for step in (phase.matrix, *phase.steps):
            if step is not None:
                made.update(dict.fromkeys(outputs(step), number))
        following = stage.phases[number + 1].matrix if number + 1 < len(stage.phases) else None
        read = {v for step in (phase.matrix, *phase.steps) for v in row_inputs(step)} | set(
            operands(following)
        )
        local |= {v for v in read if made.get(v, number) < number}
    return local


def _stores(
    region: ir.Region, steps: list[Step], level: dict[int, int]
) -> tuple[dict[int, Store], dict[int, Store]]:
    """Stores for what a later level reads, as rows and as heads."""
    last_as_rows: dict[int, int] = {}
    last_as_heads: dict[int, int] = {}
    for step in steps:
        now = level[step.out]
        complete = complete_inputs(step)
        if isinstance(step, ir.Attention):
            last_as_heads.update(dict.fromkeys(complete, now))
            complete = ()
        read = (*operands(step), *row_inputs(step), *complete)
        last_as_rows.update({v: now for v in read if now > level[v]})
    return _assign(region, level, last_as_rows, False), _assign(region, level, last_as_heads, True)


def _assign(
    region: ir.Region, first: dict[int, int], last: dict[int, int], by_head: bool
) -> dict[int, Store]:
    """A slot is free again one level after its last reader: inside a level, chunks don't wait for each other."""
    busy_until: dict[tuple[int, int, int], list[int]] = {}
    stores = {}
    for v in sorted(last, key=lambda v: first[v]):
        value = region.value(v)
        kind = (value.rows, value.cols, value.cols // ir.HEAD_SIZE if by_head else 0)
        slots = busy_until.setdefault(kind, [])
        slot = next((i for i, until in enumerate(slots) if until < first[v]), len(slots))
        slots[slot : slot + 1] = [last[v]]
        stores[v] = Store(*kind, slot)
    return stores


def _flops(region: ir.Region, op: ir.Op) -> int:
    out = region.value(op.out)
    if isinstance(op, ir.Linear):
        return 2 * out.rows * out.cols * region.value(op.x).cols
    if isinstance(op, ir.Conv1d):
        return 2 * out.rows * out.cols * 3 * region.value(op.x).cols
    if isinstance(op, ir.Attention):
        return 4 * out.rows * out.cols * region.value(op.k).rows
    return 0


def _describe(step: Step | None) -> str:
    if step is None:
        return "-"
    names = "+".join(f"%{v}" for v in outputs(step))
    activation = getattr(step.parts[0] if isinstance(step, Product) else step, "activation", None)
    return f"{names} = {type(step).__name__.lower()}{f' {activation}' if activation else ''}"
