"""Modelled time of plain transfers and of the row operations that others published: memcpy, reads, shim
tasks, softmax.

These repeat the memory, dispatch, row-op and attention rows of the calibration, so that the constants in
`Costs` are seen to agree with what they were read from, and they predict other sizes, channels and clocks.
"""

from __future__ import annotations

from torch_xdna.lowering.time.costs import Costs
from torch_xdna.lowering.time.estimate import Estimate, dispatch_seconds
from torch_xdna.lowering.time.gemm import checked_clock, estimate_gemm, gemm_kernel_cycles

# Fitted, one constant each: the published row softmax (R1) and the rescaling of O in a flash attention whose
# fp32 state goes through memory (R4). Ours are counted from our kernels instead (`Costs.kernel_cycles`).
SOFTMAX_CYCLES = 10.0  # per element
RESCALE_CYCLES = 3.0  # per element of O and block of keys
RUN_CYCLES = (
    7.5  # per contiguous run of a channel's reads, fitted to 10, 14, 18-21, 21, 26 GB/s in runs of 16-256 B
)
TASK_CYCLES = {"mm2s": 747.0, "s2mm": 171.0}  # a single measured task beyond its words (M5a, M5b)


def estimate_memcpy(
    nbytes: float,
    *,
    clock_ghz: float,
    columns: int = 4,
    channels: int = 1,
    run: float | None = None,
    dispatch: str | float = "none",
) -> Estimate:
    """Memory -> array -> memory over `channels` per column, both directions at the same time; reads in contiguous
    runs of `run` bytes (None: linear)."""
    costs = Costs(checked_clock(clock_ghz))
    lanes = columns * channels
    bounds = {
        "stream_in": costs.seconds(_in_runs(costs, nbytes / lanes, run)),
        "stream_out": costs.seconds(costs.s2mm_cycles(nbytes / lanes)),
        "ddr_read": costs.read_seconds(nbytes, nbytes),
        # a column's write limit was only seen with one channel: more channels move more
        "ddr_write": costs.write_seconds(nbytes) / channels,
    }
    return _slowest("memcpy", bounds, costs.mm2s_start_cold, costs, dispatch, bytes=nbytes, columns=columns,
                    channels=channels, run=run)  # fmt: skip


def estimate_read(
    nbytes: float,
    *,
    clock_ghz: float,
    columns: int = 4,
    channels: int = 2,
    run: float | None = None,
    dispatch: str | float = "none",
) -> Estimate:
    """Memory -> array only, in contiguous runs of `run` bytes (None: linear)."""
    costs = Costs(checked_clock(clock_ghz))
    bounds = {
        "stream_in": costs.seconds(_in_runs(costs, nbytes / columns / channels, run)),
        "ddr_read": costs.read_seconds(nbytes, nbytes),
    }
    return _slowest("read", bounds, costs.mm2s_start_cold, costs, dispatch, bytes=nbytes, columns=columns,
                    channels=channels, run=run)  # fmt: skip


def _in_runs(costs: Costs, nbytes: float, run: float | None) -> float:
    """Cycles of one channel's reads; every run costs it a pause, whether or not its memory page is open."""
    return costs.mm2s_cycles(nbytes) + (nbytes / run * RUN_CYCLES if run and run < nbytes else 0.0)


def estimate_shim_task(words: int, *, direction: str, clock_ghz: float) -> Estimate:
    """One shim DMA task of `words` 32-bit words, `direction` mm2s (memory to array) or s2mm."""
    costs = Costs(clock_ghz)
    cycles = costs.mm2s_cycles(4 * words) if direction == "mm2s" else costs.s2mm_cycles(4 * words)
    return _slowest("shim_task", {direction: costs.seconds(cycles)}, TASK_CYCLES[direction], costs, "none",
                    words=words)  # fmt: skip


def estimate_softmax(
    rows: int, cols: int, *, clock_ghz: float, cores: int = 16, dispatch: str | float = "none"
) -> Estimate:
    """The published row softmax: one pass over rows x cols at a fixed rate per element."""
    costs = Costs(clock_ghz)
    bounds = {
        "compute": costs.seconds(rows * cols / cores * SOFTMAX_CYCLES),
        "stream_in": costs.seconds(costs.mm2s_cycles(2 * rows * cols / (cores / 4))),
        "ddr_read": costs.read_seconds(2 * rows * cols, 2 * cols),
    }
    return _slowest("softmax", bounds, costs.mm2s_start_cold, costs, dispatch, rows=rows, cols=cols)


def estimate_attention_chain(queries: int, keys: int, *, clock_ghz: float, head_size: int = 64) -> Estimate:
    """One head as three runs of three overlays, without dispatch: Q K^T, row softmax, P V (as in R3)."""
    scores = estimate_gemm(queries, head_size, keys, dtype="bf16->bf16", clock_ghz=clock_ghz, dispatch="none")
    softmax = estimate_softmax(queries, keys, clock_ghz=clock_ghz)
    values = estimate_gemm(queries, keys, head_size, dtype="bf16->bf16", clock_ghz=clock_ghz, dispatch="none")
    parts = {"scores": scores.seconds, "softmax": softmax.seconds, "values": values.seconds}
    return Estimate(sum(parts.values()), parts, "softmax", {"op": "attention_chain", "clock_ghz": clock_ghz})


def estimate_flash_attention(
    queries: int,
    keys: int,
    *,
    clock_ghz: float,
    block: tuple[int, int] = (48, 32),
    head_size: int = 64,
    cores: int = 16,
) -> Estimate:
    """One head, fused, stock matrix kernels, fp32 state in memory (as in R4). `block`: queries, keys."""
    costs = Costs(clock_ghz)
    block_q, block_k = block
    blocks = queries / block_q * keys / block_k / cores
    cycles = {
        "scores": gemm_kernel_cycles(block_q, head_size, block_k),
        "values": gemm_kernel_cycles(block_q, block_k, head_size),
        "softmax": block_q * block_k * SOFTMAX_CYCLES,
        "rescale": block_q * head_size * RESCALE_CYCLES,
    }
    parts = {name: costs.seconds(blocks * value) for name, value in cycles.items()}
    return Estimate(sum(parts.values()), parts, "softmax", {"op": "flash_attention", "clock_ghz": clock_ghz})


def _slowest(
    op: str, bounds: dict[str, float], start: float, costs: Costs, dispatch: str | float, **inputs: object
) -> Estimate:
    bound = max(bounds, key=lambda name: bounds[name])
    parts = {**bounds, "start": costs.seconds(start), "dispatch": dispatch_seconds(dispatch)}
    inputs = {"op": op, "clock_ghz": costs.clock_ghz, "dispatch": dispatch, **inputs}
    return Estimate(bounds[bound] + parts["start"] + parts["dispatch"], parts, bound, inputs)
