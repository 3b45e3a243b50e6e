"""Modelled time of a whole-array matrix product as mlir-aie and IRON lay it out, for any shape, tile and
dtype.

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

When two buffers of C do not fit in a core's 64 KB, the core waits until the joined tiles of its column have
left: the published rows with 64 KB of tiles (G5-G7, G9) lie this far, and only this far, above their kernel
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from lowering.time.costs import PAGE, Costs
from lowering.time.estimate import Estimate, dispatch_seconds

ROWS = 4
CORE_MEMORY = 65536
STACK = 0xD00  # what the published GEMM designs reserve
_BYTES = {"bf16": 2, "f32": 4, "int8": 1, "int16": 2, "int32": 4}
_ALIASES = {
    "bfloat16": "bf16",
    "float32": "f32",
    "fp32": "f32",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
}
_ACCUMULATOR = {"bf16": "f32", "int8": "int32"}
# The stock kernel: cycles per 16x16 block and 8 steps of k, per 16x16 block, per row of blocks. Least
# squares of the relative errors over rows L2-L5 (bf16) and L6-L9 (int8); `python -m lowering.time fit`
# repeats it.
KERNEL = {"bf16": (32.91, 59.18, 66.94), "int8": (9.94, 72.66, 42.53)}


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
) -> Estimate:
    """Modelled seconds of C[m, n] = A[m, k] @ B[k, n]; shapes that are no multiple of the tiles are padded.

    `tile`: (m, k, n) of one core. `dtype`: input type, or `input->output` (`bf16->f32`, `bf16->bf16`,
    `int8->int32`); the input alone means the accumulator's type as output. `cores`: 1-4 in one column, or 4
    per column. `dispatch`: see `dispatch_seconds`. `c_buffers`: 2 where they fit unless given. Raises
    ValueError.
    """
    tile_m, tile_k, tile_n = tile
    if min(m, k, n, *tile) < 1:
        raise ValueError(f"gemm {m} x {k} x {n}, tile {tile}: every size must be at least 1")
    given, out = parse_dtype(dtype)
    costs = costs or Costs(clock_ghz)
    rows, columns = _grid(cores)
    size, out_size = _BYTES[given], _BYTES[out]
    a_bytes, b_bytes, c_bytes = tile_m * tile_k * size, tile_k * tile_n * size, tile_m * tile_n * out_size
    if c_buffers is None:
        c_buffers = 2 if 2 * (a_bytes + b_bytes + c_bytes) + STACK <= CORE_MEMORY else 1

    row_trips, col_trips = ceil(m / (rows * tile_m)), ceil(n / (columns * tile_n))
    tiles, steps_per_tile = row_trips * col_trips, ceil(k / tile_k)
    steps = tiles * steps_per_tile

    drain = costs.s2mm_cycles(rows * c_bytes)  # one column's tiles of C through its shim
    clear = tile_m * tile_n * 4 / 32
    kernel = gemm_kernel_cycles(tile_m, tile_k, tile_n, given)
    core = steps * (kernel + 2 * costs.object_overhead) + tiles * (clear + (drain if c_buffers == 1 else 0))
    streams = {
        "stream_a": steps * costs.mm2s_cycles(a_bytes) * rows / columns,
        "stream_b": steps * costs.mm2s_cycles(b_bytes),
        "stream_c": tiles * drain,
    }
    read = steps * _read_seconds(costs, k, n, tile_m, tile_k, tile_n, size, rows, columns, a_packed, b_packed)
    bounds = {
        "compute": costs.seconds(core),
        **{name: costs.seconds(cycles) for name, cycles in streams.items()},
        "ddr_read": read,
        "ddr_write": costs.write_seconds(tiles * rows * columns * c_bytes),
        "control": costs.seconds(row_trips * 3 * columns * costs.task_cycles),
    }
    bound = max(bounds, key=lambda name: bounds[name])
    fill = costs.mm2s_start_cold + 2 * costs.stream_cycles(max(a_bytes * rows // columns, b_bytes))
    last = (0 if c_buffers == 1 else drain) + costs.stream_cycles(c_bytes) + costs.s2mm_start_next
    parts = {
        **bounds,
        "kernel": costs.seconds(steps * kernel),
        "fill_drain": costs.seconds(fill + last),
        "dispatch": dispatch_seconds(dispatch),
    }
    inputs = {
        "op": "gemm", "m": m, "k": k, "n": n, "tile": list(tile), "dtype": f"{given}->{out}",
        "a_packed": a_packed, "b_packed": b_packed, "cores": cores, "clock_ghz": costs.clock_ghz,
        "dispatch": dispatch, "c_buffers": c_buffers,
    }  # fmt: skip
    seconds = bounds[bound] + parts["fill_drain"] + parts["dispatch"]
    return Estimate(seconds, parts, bound, inputs, 2.0 * m * k * n)


def gemm_kernel_cycles(m: int, k: int, n: int, dtype: str = "bf16") -> float:
    """One call of the stock kernel (mlir-aie mm.cc) on an m x k by k x n tile."""
    per_step, per_block, per_row = KERNEL[dtype]
    return m / 16 * (n / 16 * (per_step * k / 8 + per_block) + per_row)


def parse_dtype(dtype: str) -> tuple[str, str]:
    """`bf16` -> (bf16, f32); `bf16->bf16`, `bf16:f32`, `i8_i32`, `int8/int8` likewise. Raises ValueError."""
    text = dtype.lower()
    for separator in ("->", ":", "/", ",", "_"):
        text = text.replace(separator, " ")
    names = [_ALIASES.get(name, name) for name in text.split()]
    if len(names) == 1 and names[0] in _ACCUMULATOR:
        names.append(_ACCUMULATOR[names[0]])
    if len(names) != 2 or names[0] not in KERNEL or names[1] not in _BYTES:
        raise ValueError(
            f"dtype {dtype!r} is not known; use bf16 or int8, or for example bf16->f32, int8->int32"
        )
    return names[0], names[1]


def _grid(cores: int) -> tuple[int, int]:
    if 1 <= cores <= ROWS:
        return cores, 1
    if cores % ROWS == 0 and cores <= 4 * ROWS:
        return ROWS, cores // ROWS
    raise ValueError(f"{cores} cores: the array has 4 columns of 4; use 1-4, 8, 12 or 16")


def _read_seconds(
    costs: Costs, k: int, n: int, tile_m: int, tile_k: int, tile_n: int, size: int, rows: int, columns: int,
    a_packed: bool, b_packed: bool,
) -> float:  # fmt: skip
    """DDR time of one step: `rows` tiles of A and `columns` tiles of B."""
    nbytes = (rows * tile_m * tile_k + columns * tile_k * tile_n) * size
    runs = pages = 0.0
    if not (a_packed or k <= tile_k):
        runs += rows * tile_m
        pages += rows * tile_m * min(1.0, k * size / PAGE)
    if not (b_packed or n <= tile_n):
        runs += columns * tile_k
        pages += tile_k * min(1.0, n * size / PAGE) * ceil(columns * tile_n * size / PAGE)
    return max(nbytes / costs.read_gbs, runs * costs.run_ns + pages * costs.page_ns) * 1e-9
