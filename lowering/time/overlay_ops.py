"""Modelled time of each op of a region on our overlay, in closed form.

An op runs `trips` outer trips; a trip takes as long as the slowest of the cores, the three streams (A, B, C
of one column), the memory and the controller. Around the trips comes the boundary to the op before: the last
results leave, the controller pushes the next tasks, the first objects pass the memtiles. The array simulator
executes the real program instead; both read `Costs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from torch_xdna.lowering import ops
from torch_xdna.lowering.host_data.conv_input import PLANES, conv_input
from torch_xdna.lowering.time.costs import Costs

ROWS = 4
BLOCK = 64
BLOCK_BYTES = 8192
PEAK_MACS = 128  # bf16 MACs per cycle and core
ROW_KINDS: dict[type, str] = {
    ops.LayerNorm: "layer_norm", ops.Softmax: "softmax", ops.Gelu: "gelu", ops.Add: "add"
}  # fmt: skip


@dataclass(frozen=True)
class OpTime:
    """One op's modelled time. `bounds`: seconds by cause (compute, stream, ddr, control), the largest is
    `bound`.

    `boundary`: seconds between this op and the one before, part of `seconds`. `kernel`: seconds in the
    matrix kernel.
    """

    name: str
    kind: str
    shape: str
    seconds: float
    bounds: Mapping[str, float]
    boundary: float
    kernel: float
    macs: int
    bytes_read: int
    bytes_written: int
    tasks: int

    @property
    def bound(self) -> str:
        return max(self.bounds, key=lambda name: self.bounds[name])

    def efficiency(self, clock_ghz: float, columns: int) -> float:
        """Share of the array's bf16 peak, counting only the useful products."""
        return self.macs / (self.seconds * clock_ghz * 1e9 * PEAK_MACS * ROWS * columns)


def time_region(region: ops.Region, costs: Costs, columns: int = 4) -> list[OpTime]:
    """Every op of `region` in order; products that read the same rows one after another become one."""
    results: list[OpTime] = []
    for group in _fused(region):
        first = group[0]
        rows, cols = _shape(region, first.out)
        if isinstance(first, ops.Linear):
            _, k = _shape(region, first.x)
            widths = [_shape(region, op.out)[1] for op in group]
            residual = any(isinstance(op, ops.Linear) and op.residual is not None for op in group)
            name = "+".join([first.name, *[op.name.rpartition(".")[2] for op in group[1:]]])
            gelu = any(isinstance(op, ops.Linear) and op.activation for op in group)
            results.append(gemm(name, rows, k, widths, costs, columns, gelu=gelu, residual=residual))
        elif isinstance(first, ops.Conv1d):
            results.extend(conv(first, region, costs, columns))
        elif isinstance(first, ops.Attention):
            keys, _ = _shape(region, first.k)
            results.append(attention(first.name, rows, keys, first.heads, costs, columns))
        else:
            results.append(row_op(first.name, ROW_KINDS[type(first)], rows, cols, costs, columns))
    if results:  # A program begins with B's channels idle too; later they have work from the op before.
        late, op = costs.seconds(_columns_apart(costs, columns)), results[0]
        results[0] = replace(op, seconds=op.seconds + late, boundary=op.boundary + late)
    return results


def gemm(
    name: str,
    rows: int,
    k: int,
    widths: Sequence[int],
    costs: Costs,
    columns: int,
    *,
    gelu: bool = False,
    residual: bool = False,
    kind: str = "gemm",
    macs: int | None = None,
) -> OpTime:
    """[rows, k] @ [k, n] for each n of `widths` (one panel after another)."""
    k_blocks = ceil(k / BLOCK)
    groups = ceil(rows / (ROWS * BLOCK))
    rounds = sum(_padded(n) for n in widths) // columns
    trips = rounds * groups
    extra = columns if residual else 0  # A objects of which each core takes one
    step = costs.kernel_cycles("gemm_step")
    calls = k_blocks + 1 + extra + 1
    core = (
        costs.kernel_cycles("gemm_init")
        + k_blocks * step
        + costs.kernel_cycles("gemm_params", "gelu" if gelu and residual else "")
        + costs.kernel_cycles("gemm_finish", "gelu" if gelu and not residual else "")
        + (calls + k_blocks) * costs.object_overhead
    )
    if residual:
        core += costs.kernel_cycles("gemm_residual") + (extra - 1) * costs.kernel_cycles(
            "gemm_residual", "skip"
        )
        # A core passes over the other columns' blocks faster than they arrive: two are there already, the rest stream.
        core += max(0, extra - 2) * costs.stream_cycles(BLOCK_BYTES)
    tasks = columns * ((2 * rounds * groups if residual else 1) + 2 * rounds)
    return _op(
        name, kind, f"{rows}x{k}x{'+'.join(str(n) for n in widths)}", costs, columns, trips,
        core=core, a=k_blocks + extra, b=k_blocks + 1, c=1, tasks=tasks, step=k_blocks * step,
        macs=rows * k * sum(widths) if macs is None else macs,
    )  # fmt: skip


def conv(op: ops.Conv1d, region: ops.Region, costs: Costs, columns: int) -> list[OpTime]:
    """A convolution as products. Over a host input the left side is gathered first; a stride-2 convolution that
    follows sums over three planes of this one's rows, and one of the three is the other's odd rows again."""
    rows, out = _shape(region, op.out)
    _, channels = _shape(region, op.x)
    residual = op.residual is not None
    if op.x not in region.inputs:
        k = 3 * BLOCK * ceil(channels / BLOCK)
        macs = rows * 3 * channels * out
        return [
            gemm(op.name, rows, k, [out], costs, columns, gelu=bool(op.activation), residual=residual,
                 kind="conv", macs=macs)
        ]  # fmt: skip
    second = next((o for o in region.ops if isinstance(o, ops.Conv1d) and o.x == op.out), None)
    planes = (("", 0),) if op.stride != 1 or second is None else PLANES
    phases = op.stride if len(planes) == 1 else 2
    made = ceil(rows * op.stride / phases)
    given = conv_input(channels, [center for _, center in planes], phases, _padded(made), "")
    results = [gather(f"{op.name} input", made, len(given.columns), costs, columns)]
    for which, center in planes:
        k = 8 * len(given.window(center)[1])
        useful = made * 3 * channels * out if center >= 0 else 0
        results.append(
            gemm(f"{op.name} {which}".strip(), made, k, [out], costs, columns,
                 gelu=bool(op.activation), residual=residual, kind="conv", macs=useful)
        )  # fmt: skip
    return results


def gather(name: str, rows: int, blocks: int, costs: Costs, columns: int) -> OpTime:
    """Blocks of a left side from a host's frames, in runs of 64 bytes: one transfer per block."""
    groups, rounds = ceil(rows / (ROWS * BLOCK)), 4 * ceil(blocks / 4) // columns
    core = (
        costs.kernel_cycles("gemm_init")
        + costs.kernel_cycles("gemm_params")
        + costs.kernel_cycles("gemm_residual")
        + (columns - 1) * costs.kernel_cycles("gemm_residual", "skip")
        + costs.kernel_cycles("gemm_finish")
        + (columns + 2) * costs.object_overhead
    )
    return _op(
        name, "gather", f"{rows}x{BLOCK * blocks}", costs, columns, rounds * groups,
        core=core, a=columns, b=1, c=1, tasks=columns * rounds * (groups * ROWS + 2), step=0.0, macs=0, run=64,
    )  # fmt: skip


def attention(name: str, queries: int, keys: int, heads: int, costs: Costs, columns: int) -> OpTime:
    """Fused attention: a column works on whole (head, group of 4 query blocks) tasks, one trip each."""
    groups, key_blocks = ceil(queries / (ROWS * BLOCK)), ceil(keys / BLOCK)
    trips = ceil(heads * groups / columns)
    a_objects = max(2, columns)
    step = costs.kernel_cycles("gemm_step")
    core = (
        costs.kernel_cycles("attn_q")
        + (a_objects - 1) * costs.kernel_cycles("attn_q", "skip")
        + costs.kernel_cycles("attn_init")
        + key_blocks * (costs.kernel_cycles("attn_k") + step)
        + costs.kernel_cycles("attn_finish")
        + (2 * key_blocks + a_objects + 1) * costs.object_overhead
    )
    return _op(
        name, "attention", f"{heads}x{queries}x{keys}x{BLOCK}", costs, columns, trips,
        core=core, a=a_objects, b=2 * key_blocks, c=1, tasks=3 * trips * columns, step=2 * key_blocks * step,
        macs=2 * heads * queries * keys * BLOCK,
    )  # fmt: skip


def row_op(name: str, kind: str, rows: int, cols: int, costs: Costs, columns: int) -> OpTime:
    """layer_norm and softmax read a block twice, gelu once, add two; a column takes whole row blocks."""
    width = _padded(cols)
    trips = _padded(rows) // columns
    statistics = ceil(cols / BLOCK) if kind in ("layer_norm", "softmax") else 0
    apply = 2 * width if kind == "add" else width
    core = apply * costs.kernel_cycles("row_apply", kind) + (statistics + apply) * costs.object_overhead
    if statistics:
        core += statistics * costs.kernel_cycles("row_stats", kind)
    return _op(
        name, kind, f"{rows}x{cols}", costs, columns, trips,
        core=core, a=0, b=statistics + apply, c=width // ROWS, tasks=3 * columns, step=0.0, macs=0,
    )  # fmt: skip


def _op(
    name: str, kind: str, shape: str, costs: Costs, columns: int, trips: int, *,
    core: float, a: int, b: int, c: int, tasks: int, step: float, macs: int, run: int = BLOCK_BYTES,
) -> OpTime:  # fmt: skip
    """Put the bounds of `trips` equal trips together; a, b, c: objects per trip of one core's streams; `run`:
    contiguous bytes of A's reads."""
    share = ROWS / columns  # rows of cores that one column's A channel feeds
    read = trips * BLOCK_BYTES * (ROWS * a + columns * b)
    written = trips * BLOCK_BYTES * ROWS * columns * c
    streams = max(
        costs.mm2s_cycles(BLOCK_BYTES) * max(a * share, b), costs.s2mm_cycles(BLOCK_BYTES) * ROWS * c
    )
    bounds = {
        "compute": costs.seconds(trips * core),
        "stream": costs.seconds(trips * streams),
        "ddr": max(costs.read_seconds(read, run), costs.write_seconds(written)),
        # Where the controller is what one waits for, channels have run dry when their next task is pushed, and the
        # next task is written meanwhile.
        "control": costs.seconds(max(0, tasks - 3 * columns) * (costs.push_cold - costs.task_cycles)),
    }
    boundary = costs.seconds(_boundary(costs, columns))
    return OpTime(
        name, kind, shape, max(bounds.values()) + boundary, bounds, boundary, costs.seconds(trips * step),
        macs, read, written, tasks, )  # fmt: skip


def _boundary(costs: Costs, columns: int) -> float:
    """Cycles between two ops: last block out, token, tasks of all columns, first objects in."""
    share = ROWS // columns
    leave = costs.stream_cycles(BLOCK_BYTES) + costs.s2mm_cycles(ROWS * BLOCK_BYTES) + costs.sync
    push = 3 * columns * costs.task_cycles + _columns_apart(costs, columns)
    header = costs.kernel_cycles("read_header")
    enter = costs.mm2s_start_next + costs.mm2s_cycles(share * BLOCK_BYTES) + costs.stream_cycles(BLOCK_BYTES)
    return leave + push + header + 2 * enter


def _columns_apart(costs: Costs, columns: int) -> float:
    """Cycles from the first to the last column's push of one kind of task onto idle channels, beyond other pushes'."""
    return (columns - 1) * (costs.push_cold - costs.task_cycles)


def _fused(region: ops.Region) -> list[list[ops.Op]]:
    """Runs of linears with the same input and no residual: their panels are one product's."""
    groups: list[list[ops.Op]] = []
    for op in region.ops:
        last = groups[-1][-1] if groups else None
        if (
            isinstance(op, ops.Linear) and isinstance(last, ops.Linear) and op.x == last.x
            and op.residual is None and last.residual is None and op.activation == last.activation
        ):  # fmt: skip
            groups[-1].append(op)
        else:
            groups.append([op])
    return groups


def _padded(size: int) -> int:
    """Blocks of a padded dimension: a multiple of 4, so that every column count divides it."""
    return 4 * ceil(size / BLOCK / 4)


def _shape(region: ops.Region, value: int) -> tuple[int, int]:
    found = region.value(value)
    return found.rows, found.cols
