"""What was tried on the model: each idea priced by the closed form, losing ones included. All modelled."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from torch_xdna.lowering.time import Costs, estimate_encoder, estimate_gemm
from torch_xdna.lowering.time.estimate import DISPATCH_S
from torch_xdna.lowering.time.gemm import gemm_kernel_cycles
from torch_xdna.lowering.time.overlay_ops import attention, gemm, row_op
from torch_xdna.lowering.whisper import MODELS, EncoderConfig

CLOCK, COLUMNS, ROWS = 1.03, 4, 1500
BASE = MODELS["base"]


@dataclass(frozen=True)
class Idea:
    """`gain`: ms of a whole encoder pass that the idea saves (negative: costs)."""

    name: str
    model: str
    gain: float
    verdict: str


def ideas() -> list[str]:
    """A table, and how to read it."""
    lines = ["| idea | model | ms without it | gain ms | gain | verdict |", "|---|---|---|---|---|---|"]
    for idea in sorted(_all(), key=lambda found: -found.gain):
        without = _total(idea.model)
        if idea.verdict.startswith("in"):
            without += idea.gain
        lines.append(
            f"| {idea.name} | {idea.model} | {without:.1f} | {idea.gain:+.2f} | {idea.gain / without:+.1%} "
            f"| {idea.verdict} |"
        )
    explained = (
        f"Per encoder pass at context 1500, {CLOCK:g} GHz, {COLUMNS} columns, by the closed form. Gain: ms "
        "saved by the idea; negative means that it costs time. `in`: the design has it; `open`: it would pay; "
        "`no`: it was left out."
    )
    return [explained, "\n".join(lines)]


def _all() -> list[Idea]:
    costs = Costs(CLOCK)
    return [
        Idea("one dispatch for the whole encoder, not one per op", "base", _per_op_dispatch(costs), "in"),
        Idea("one overlay for all ops, not one per kind of op", "base", _overlay_changes(costs), "in"),
        Idea("attention fused, scores never leave the core", "base", _fused_attention(costs), "in"),
        Idea("operands packed in blocks, not row-major", "base", _packed(), "in"),
        Idea("GELU in the product's epilogue, not as a row op", "base", _gelu_epilogue(costs), "in"),
        Idea("residual blocks streamed to the core that adds them, not past all of a row", "base", _own_residual(costs),
             "open: a FIFO"),
        Idea("residual in the product's epilogue, not as an add", "base", _residual_epilogue(costs), "in"),
        Idea("q, k, v as one product", "base", _joined(costs), "in"),
        Idea("best published GEMM kernel (112.6 MAC/cycle) in products and attention", "base",
             _total("base") - _total("base", better_gemm=True), "open: hand-scheduled assembly"),
        Idea("int8 products at the stock int8 kernel's rate", "base",
             _total("base") - _total("base", precision="int8"), "no: the overlay computes bf16; accuracy"),
        Idea("all kernels in forms that were traced: loops that overlap, k unrolled, next operands read first", "base",
             1e3 * estimate_encoder("base", clock_ghz=CLOCK, stock_kernels=True).seconds - _total("base"), "in"),
        Idea("GELU where results leave for another buffer, not in place", "base",
             _instead(costs, _activated(), ("gemm_params", "gelu"), ("gemm_finish", "gelu")), "in"),
        Idea("layer_norm's statistics and results in flat loops", "base",
             _instead(costs, 13 * 6 * 8, ("row_apply", "layer_norm"), ("row_apply", "layer_norm"), stock=True), "in"),
        Idea("attention without its softmax", "base", _softmax_bound(costs), "open: a bound"),
        Idea("layer_norm reads its rows once, kept in the memtile", "base", _norm_once(costs), "no: a FIFO"),
        Idea("conv1 in two planes, the shifted one taken from the odd one", "base", _planes(costs),
             "no: rows can't be shifted inside 4 x 8 tiles"),
        Idea("block columns not padded to a multiple of 4", "tiny", _unpadded(costs), "open: q, k, v panels"),
        Idea("k blocks of 128 (54 MAC/cycle), single buffers so that it fits", "base", _long_k(costs),
             "no: the streams are exposed"),
        Idea("two C buffers per core", "base", _double_c(costs), "no: C leaves in time"),
        Idea("two clips per dispatch", "base", DISPATCH_S["stream"] / 2 * 1e3, "no: latency doubles"),
    ]  # fmt: skip


def _total(model: str, **asked: Any) -> float:
    return 1e3 * estimate_encoder(model, clock_ghz=CLOCK, columns=COLUMNS, **asked).seconds


def _steps(config: EncoderConfig) -> int:
    return 2 + 7 * config.layers + 1


def _per_op_dispatch(costs: Costs) -> float:
    return 1e3 * (_steps(BASE) * DISPATCH_S["single"] - DISPATCH_S["stream"])


def _overlay_changes(costs: Costs) -> float:
    """Six changes per layer: norm, product, attention, product, norm, product, and back to the next norm."""
    return 1e3 * 6 * BASE.layers * costs.overlay_change_s


def _fused_attention(costs: Costs) -> float:
    """Against Q K^T, a row softmax and P V as steps of the same overlay."""
    apart = BASE.heads * (
        gemm("scores", ROWS, 64, [ROWS], costs, COLUMNS).seconds
        + row_op("softmax", "softmax", ROWS, ROWS, costs, COLUMNS).seconds
        + gemm("values", ROWS, ROWS, [64], costs, COLUMNS).seconds
    )
    return 1e3 * BASE.layers * (apart - attention("fused", ROWS, ROWS, BASE.heads, costs, COLUMNS).seconds)


def _packed() -> float:
    def layer(packed: bool) -> float:
        shapes = [(512, 512)] * 4 + [(512, 2048), (2048, 512)]
        return sum(
            estimate_gemm(ROWS, k, n, dtype="bf16->bf16", a_packed=packed, b_packed=packed, clock_ghz=CLOCK,
                          dispatch="none").seconds
            for k, n in shapes
        )  # fmt: skip

    return 1e3 * BASE.layers * (layer(False) - layer(True))


def _gelu_epilogue(costs: Costs) -> float:
    epilogue = _product(costs, 512, 2048, gelu=True)
    apart = _product(costs, 512, 2048) + row_op("gelu", "gelu", ROWS, 2048, costs, COLUMNS).seconds
    return 1e3 * BASE.layers * (apart - epilogue)


def _residual_epilogue(costs: Costs) -> float:
    add = row_op("add", "add", ROWS, 512, costs, COLUMNS).seconds
    saved = 0.0
    for k in (512, 2048):
        saved += _product(costs, k, 512) + add - _product(costs, k, 512, residual=True)
    return 1e3 * BASE.layers * saved


def _own_residual(costs: Costs) -> float:
    """Of 4 blocks a core adds one; two of the others arrive while it does not wait for them."""
    trips = BASE.layers * 6 * (2 + 2) + 6 * 2
    return 1e3 * costs.seconds(trips * (COLUMNS - 2) * costs.stream_cycles(8192))


def _joined(costs: Costs) -> float:
    return 1e3 * BASE.layers * (3 * _product(costs, 512, 512) - _product(costs, 512, 512, 512, 512))


def _activated() -> int:
    """Blocks of 64 x 64 outputs per core that end in GELU and have no residual: fc1 and the first convolution."""
    return BASE.layers * 6 * 8 + 3 * 6 * 2


def _instead(
    costs: Costs, calls: int, was: tuple[str, str], now: tuple[str, str], *, stock: bool = False
) -> float:
    """`calls` of one kernel at its cost now, not at that of another (or at the rate assumed before: `stock`)."""
    before = Costs(CLOCK, stock_kernels=stock).kernel_cycles(*was)
    return 1e3 * costs.seconds(calls * (before - costs.kernel_cycles(*now)))


def _softmax_bound(costs: Costs) -> float:
    trips = ceil(BASE.heads * 6 / COLUMNS) * 24 * BASE.layers
    return 1e3 * costs.seconds(trips * (costs.kernel_cycles("attn_k") - costs.kernel_cycles("gemm_step")))


def _norm_once(costs: Costs) -> float:
    """The stream of B halves; then the cores bound it."""
    now = row_op("norm", "layer_norm", ROWS, 512, costs, COLUMNS)
    once = max(now.bounds["stream"] / 2, now.bounds["compute"]) + now.boundary
    return 1e3 * (2 * BASE.layers + 1) * (now.seconds - once)


def _planes(costs: Costs) -> float:
    def conv(planes: int) -> float:
        return planes * gemm("conv1", ROWS, 240, [512], costs, COLUMNS, gelu=True).seconds

    return 1e3 * (conv(3) - conv(2))


def _unpadded(costs: Costs) -> float:
    """tiny has 6 block columns: q, k, v need 18 of 24 panels, so 5 of 6 rounds."""
    product = _product(costs, 384, 384, 384, 384)
    return 1e3 * MODELS["tiny"].layers * product / 6


def _long_k(costs: Costs) -> float:
    """Two k blocks per call save an accumulator's load and store, but nothing can be fetched meanwhile."""
    now = 2 * (costs.kernel_cycles("gemm_step") + 2 * costs.object_overhead)
    long = gemm_kernel_cycles(64, 128, 64) + costs.stream_cycles(2 * 8192) + 2 * costs.object_overhead
    steps = BASE.layers * 6 * (6 * 8 + 2 * 8 + 8 * 8 + 2 * 32)
    return 1e3 * costs.seconds(steps / 2 * (now - long))


def _double_c(costs: Costs) -> float:
    """A core waits for its C buffer only if a trip is shorter than its column's blocks take to leave."""
    waits = 0.0
    for op in estimate_encoder("base", clock_ghz=CLOCK).ops:
        waits += max(0.0, op.bounds["stream"] - op.bounds["compute"]) if op.kind in ("gemm", "conv") else 0.0
    return 1e3 * waits


def _product(costs: Costs, k: int, *widths: int, gelu: bool = False, residual: bool = False) -> float:
    return gemm("product", ROWS, k, widths, costs, COLUMNS, gelu=gelu, residual=residual).seconds
