"""Modelled time of a whole-array matrix product as mlir-aie and IRON lay it out: any shape, tile and dtype.

The design: 4 rows of cores and up to 4 columns. Every core owns an m x n tile of C. A tiles are broadcast
along a row of cores, B tiles along a column; the tiles of C of one column are joined in its memtile and
leave through its shim. So one step (one k-tile on every core) moves 4 tiles of A and `columns` tiles of B,
and takes as long as the slowest of

- core: the stock kernel's cycles (fitted on rows L1-L9) plus the FIFOs' acquire and release;
- streams: one 32-bit word per cycle and channel;
- DDR reads: bandwidth, or requests: every contiguous run costs time, and so does every page that short runs
  open. A row-major A tile is m runs of k elements, one page each when the row pitch is a page or more; the
  tiles of B of neighbouring columns lie side by side in one page. Packed operands are linear;
- DDR writes and the stream of C, once per tile;
- the controller that pushes three tasks per column and row of tiles.

Cores that a small product leaves without a tile stay idle. When two buffers of C do not fit in a core's
64 KB, the core waits until the joined tiles of its column have left: the published rows with 64 KB of tiles
(G5-G7, G9) lie this far, and only this far, above their kernel time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from operator import index

from torch_xdna.lowering.time.costs import PAGE, Costs
from torch_xdna.lowering.time.estimate import Estimate, dispatch_seconds

Kernel = tuple[float, float, float]

ROWS = 4
CORE_MEMORY = 65536
STACK = 0xD00  # what the published GEMM designs reserve
LEAST_STACK = 0x400  # mlir-aie's default: a design that has no more is possible
LARGEST = 2**31 - 1  # of a dimension
FASTEST_GHZ = 10.0  # a clock above this was meant in MHz
_BYTES = {"bf16": 2, "f32": 4, "int8": 1, "int16": 2, "int32": 4}
# Output types of the stock kernels per input type, the accumulator's first.
_OUTPUTS = {"bf16": ("f32", "bf16"), "int8": ("int32", "int16", "int8"), "int16": ("int32", "int16")}
_ALIASES = {
    "bfloat16": "bf16",
    "float32": "f32",
    "fp32": "f32",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
}
# The multiplier's MAC per cycle, and the share of it that the stock kernel's inner loop reaches (16 MACs in 32
# bundles; 0.889 for integers). No stock int16 kernel was measured: its loop is taken to be int8's.
PEAK_MACS = {"bf16": 128, "int8": 256, "int16": 64}
LOOP_SHARE = {"bf16": 0.5, "int8": 0.889, "int16": 0.889}
# The stock kernel: cycles per 16x16 block and 8 steps of k, per 16x16 block, per row of blocks. Least
# squares of the relative errors over rows L2-L5 (bf16) and L6-L9 (int8); `python -m torch_xdna.lowering.time fit`
# repeats it.
KERNEL = {"bf16": (32.91, 59.18, 66.94), "int8": (9.94, 72.66, 42.53)}


def scheduled_kernel(dtype: str, measured: Mapping[str, tuple[float, float, float]] = KERNEL) -> Kernel:
    """A triple as in `KERNEL` for a type that is not measured: its own inner loop, and what the loading and
    storing of sums costs the measured types on average."""
    blocks, rows = (sum(triple[i] for triple in measured.values()) / len(measured) for i in (1, 2))
    return 16 * 16 * 8 / PEAK_MACS[dtype] / LOOP_SHARE[dtype], blocks, rows


def estimate_gemm(
    m: int,
    k: int,
    n: int,
    *,
    tile: Sequence[int] = (64, 64, 64),
    dtype: str = "bf16",
    b_packed: bool = False,
    cores: int = 16,
    clock_ghz: float,
    dispatch: str | float = "single",
    a_packed: bool = False,
    c_buffers: int | None = None,
    costs: Costs | None = None,
    kernel: Kernel | None = None,
) -> Estimate:
    """Modelled seconds of C[m, n] = A[m, k] @ B[k, n]; shapes that are no multiple of the tiles are padded.

    `tile`: (m, k, n) of one core. `dtype`: input type, or `input->output` (`bf16->f32`, `bf16->bf16`,
    `int8->int32`, `int16->int32`); the input alone means the accumulator's type as output. `cores`: 1-4 in
    one column, or 4 per column. `dispatch`: see `dispatch_seconds`. `c_buffers`: 2 where they fit unless
    given; A and B always have 2. `kernel`: constants in place of `KERNEL`'s. Raises ValueError.
    """
    m, k, n = _sizes("gemm", (m, k, n))
    tile_m, tile_k, tile_n = _sizes("tile", tile)
    given, out = parse_dtype(dtype)
    costs = costs or Costs(checked_clock(clock_ghz))
    rows, columns = _grid(cores)
    size, out_size = _BYTES[given], _BYTES[out]
    a_bytes, b_bytes, c_bytes = tile_m * tile_k * size, tile_k * tile_n * size, tile_m * tile_n * out_size
    if c_buffers is None:
        c_buffers = 2 if 2 * (a_bytes + b_bytes + c_bytes) + STACK <= CORE_MEMORY else 1
    if c_buffers not in (1, 2):
        raise ValueError(f"{c_buffers} buffers of C: a core has 1 or 2")
    needed = 2 * (a_bytes + b_bytes) + c_buffers * c_bytes + LEAST_STACK
    if needed > CORE_MEMORY:
        raise ValueError(
            f"tile {tile_m},{tile_k},{tile_n} of {given}->{out} needs {needed} bytes of a core's {CORE_MEMORY} (two "
            f"buffers of A and of B, {c_buffers} of C, {LEAST_STACK} of stack): choose a smaller tile"
        )

    down, across, deep = ceil(m / tile_m), ceil(n / tile_n), ceil(k / tile_k)  # tiles of C, and of k
    row_trips, col_trips = ceil(down / rows), ceil(across / columns)
    tiles = row_trips * col_trips  # of the busiest core
    steps = tiles * deep

    constants = kernel or KERNEL.get(given) or scheduled_kernel(given)
    call = _call_cycles(tile_m, tile_k, tile_n, constants)
    drain = costs.s2mm_cycles(min(rows, down) * c_bytes)  # one column's tiles of C through its shim
    clear = tile_m * tile_n * 4 / 32
    core = steps * (call + 2 * costs.object_overhead) + tiles * (clear + (drain if c_buffers == 1 else 0))
    a_tiles, b_tiles = down * col_trips * deep, row_trips * across * deep  # read, the whole array
    short_runs = 0.0
    if not (a_packed or k <= tile_k):
        short_runs += _runs_seconds(costs, a_tiles * tile_m, a_tiles * tile_m, k * size)
    if not (b_packed or n <= tile_n):  # the tiles of neighbouring columns share pages
        pages = steps * tile_k * ceil(min(columns, across) * tile_n * size / PAGE)
        short_runs += _runs_seconds(costs, b_tiles * tile_k, pages, n * size)
    bounds = {
        "compute": costs.seconds(core),
        "stream_a": costs.seconds(a_tiles / columns * costs.mm2s_cycles(a_bytes)),
        "stream_b": costs.seconds(steps * costs.mm2s_cycles(b_bytes)),
        "stream_c": costs.seconds(down * col_trips * costs.s2mm_cycles(c_bytes)),
        "ddr_read": max((a_tiles * a_bytes + b_tiles * b_bytes) / costs.read_gbs * 1e-9, short_runs),
        "ddr_write": costs.write_seconds(down * across * c_bytes),
        "control": costs.seconds(row_trips * 3 * min(columns, across) * costs.task_cycles),
    }
    bound = max(bounds, key=lambda name: bounds[name])
    fill = costs.mm2s_start_cold + 2 * costs.stream_cycles(max(a_bytes * min(rows, down) / columns, b_bytes))
    last = (0 if c_buffers == 1 else drain) + costs.stream_cycles(c_bytes) + costs.s2mm_start_next
    parts = {
        **bounds,
        "kernel": costs.seconds(steps * call),
        "fill_drain": costs.seconds(fill + last),
        "dispatch": dispatch_seconds(dispatch),
    }
    inputs = {
        "op": "gemm", "m": m, "k": k, "n": n, "tile": list(tile), "dtype": f"{given}->{out}",
        "a_packed": a_packed, "b_packed": b_packed, "cores": cores, "clock_ghz": costs.clock_ghz,
        "dispatch": dispatch, "c_buffers": c_buffers, "kernel": "fitted" if given in KERNEL else "assumed",
    }  # fmt: skip
    seconds = bounds[bound] + parts["fill_drain"] + parts["dispatch"]
    return Estimate(seconds, parts, bound, inputs, 2.0 * m * k * n)


def gemm_kernel_cycles(m: int, k: int, n: int, dtype: str = "bf16") -> float:
    """One call of the stock kernel (mlir-aie mm.cc) on an m x k by k x n tile; it works on 16 x 8 by 8 x 16."""
    return _call_cycles(m, k, n, KERNEL.get(dtype) or scheduled_kernel(dtype))


def _call_cycles(m: int, k: int, n: int, constants: Kernel) -> float:
    per_step, per_block, per_row = constants
    return ceil(m / 16) * (ceil(n / 16) * (per_step * ceil(k / 8) + per_block) + per_row)


def checked_clock(clock_ghz: float) -> float:
    """`clock_ghz` if a core can have it. Raises ValueError."""
    try:
        clock = float(clock_ghz)
    except (TypeError, ValueError):
        clock = 0.0
    if not (isfinite(clock) and 0 < clock <= FASTEST_GHZ):
        raise ValueError(
            f"clock {clock_ghz}: the cores' clock is a number of GHz above 0 and at most {FASTEST_GHZ:g}, for "
            "example 1.03"
        )
    return clock


def _sizes(what: str, sizes: Sequence[int]) -> tuple[int, int, int]:
    try:
        m, k, n = (index(size) for size in sizes)
    except (TypeError, ValueError):
        raise ValueError(f"{what} {sizes!r}: three whole numbers are needed, m, k and n") from None
    if not 1 <= min(m, k, n) <= max(m, k, n) <= LARGEST:
        raise ValueError(f"{what} {m} x {k} x {n}: every size must be at least 1 and at most {LARGEST}")
    return m, k, n


def _runs_seconds(costs: Costs, runs: int, pages: int, pitch: int) -> float:
    """DDR time of contiguous runs that open `pages` pages, fewer if rows lie closer (`pitch`, bytes) than a page."""
    return (runs * costs.run_ns + pages * min(1.0, pitch / PAGE) * costs.page_ns) * 1e-9


def parse_dtype(dtype: str) -> tuple[str, str]:
    """`bf16` -> (bf16, f32); `bf16->bf16`, `bf16:f32`, `i8_i32`, `int8/int8` likewise. Raises ValueError."""
    text = dtype.lower()
    for separator in ("->", ":", "/", ",", "_"):
        text = text.replace(separator, " ")
    names = [_ALIASES.get(name, name) for name in text.split()]
    if len(names) == 1 and names[0] in _OUTPUTS:
        names.append(_OUTPUTS[names[0]][0])
    if len(names) != 2 or names[1] not in _OUTPUTS.get(names[0], ()):
        known = ", ".join(f"{given}->{out}" for given, outs in _OUTPUTS.items() for out in outs)
        raise ValueError(f"dtype {dtype!r} is not known; use bf16, int8 or int16, or one of {known}")
    return names[0], names[1]


def _grid(cores: int) -> tuple[int, int]:
    if isinstance(cores, int) and 1 <= cores <= ROWS:
        return cores, 1
    if isinstance(cores, int) and cores % ROWS == 0 and 0 < cores <= 4 * ROWS:
        return ROWS, cores // ROWS
    raise ValueError(f"{cores} cores: the NPU gives 4 columns of 4 cores to programs; use 1-4, 8, 12 or 16")
