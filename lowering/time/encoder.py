"""Modelled time of a Whisper encoder on our overlay: the closed form over its region, one dispatch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch_xdna.lowering.time.costs import Costs
from torch_xdna.lowering.time.estimate import Estimate, dispatch_seconds
from torch_xdna.lowering.time.gemm import checked_clock, gemm_kernel_cycles
from torch_xdna.lowering.time.overlay_ops import OpTime, time_region
from torch_xdna.lowering.whisper import EncoderConfig, encoder_config, encoder_region

LARGEST_CONTEXT = 1_000_000  # frames; Whisper has 1500
WINDOW_S = 30.0  # audio that context 1500 stands for


@dataclass(frozen=True)
class EncoderEstimate(Estimate):
    """An `Estimate` with the modelled time of every op."""

    ops: tuple[OpTime, ...] = ()

    @property
    def kinds(self) -> dict[str, float]:
        """Seconds by kind of op (gemm, attention, layer_norm, conv, ...), without the dispatch."""
        kinds: dict[str, float] = {}
        for op in self.ops:
            kinds[op.kind] = kinds.get(op.kind, 0.0) + op.seconds
        return kinds

    @property
    def real_time_factor(self) -> float:
        """Seconds of audio per second of encoder."""
        return WINDOW_S * self.inputs["context"] / 1500 / self.seconds

    def as_dict(self) -> dict[str, Any]:
        clock, columns = self.inputs["clock_ghz"], self.inputs["columns"]
        listed = [
            {
                "name": op.name, "kind": op.kind, "shape": op.shape, "seconds": op.seconds, "bound": op.bound,
                "efficiency": op.efficiency(clock, columns), "bytes_read": op.bytes_read,
                "bytes_written": op.bytes_written, "bounds": dict(op.bounds),
            }
            for op in self.ops
        ]  # fmt: skip
        return {
            **super().as_dict(),
            "real_time_factor": self.real_time_factor,
            "kinds": self.kinds,
            "ops": listed,
        }


def estimate_encoder(
    name_or_config: str | EncoderConfig | Mapping[str, Any] | Any,
    *,
    context: int = 1500,
    clock_ghz: float,
    columns: int = 4,
    precision: str = "bf16",
    better_gemm: bool = False,
    stock_kernels: bool = False,
    costs: Costs | None = None,
) -> EncoderEstimate:
    """Modelled seconds of one encoder pass on one clip, everything in one dispatch.

    `name_or_config`: a key of `MODELS` (also `openai/whisper-base`), an `EncoderConfig`, or a Hugging Face
    configuration (object or mapping). `context`: encoder frames, 1500 for 30 s. `precision` bf16 is what the
    overlay computes; int8 is a what-if: the products at the stock int8 kernel's rate. `better_gemm`: the
    products at the best published bf16 rate, a what-if as well. `stock_kernels`: all kernels at the rates that were
    assumed before they were rewritten. Raises ValueError.
    """
    config = encoder_config(name_or_config)
    if columns not in (1, 2, 4):
        raise ValueError(f"{columns} columns: the overlay has 1, 2 or 4")
    if not isinstance(context, int) or not 1 <= context <= LARGEST_CONTEXT:
        raise ValueError(
            f"context {context!r}: frames are a whole number from 1 to {LARGEST_CONTEXT}, 1500 for 30 s"
        )
    costs = costs or Costs(checked_clock(clock_ghz), better_gemm=better_gemm, stock_kernels=stock_kernels)
    times = time_region(encoder_region(config, context), _with_precision(costs, precision), columns)
    breakdown = {name: 0.0 for name in ("compute", "stream", "ddr", "control")}
    for op in times:
        breakdown[op.bound] += op.seconds - op.boundary
    breakdown["boundary"] = sum(op.boundary for op in times)
    breakdown["dispatch"] = dispatch_seconds("stream")
    inputs = {
        "op": "encoder", "model": config.name, "context": context, "clock_ghz": costs.clock_ghz,
        "columns": columns, "precision": precision, "better_gemm": costs.better_gemm,
        "stock_kernels": costs.stock_kernels,
    }  # fmt: skip
    bound = max(("compute", "stream", "ddr", "control"), key=lambda name: breakdown[name])
    total = sum(breakdown.values())
    work = 2.0 * sum(op.macs for op in times)
    return EncoderEstimate(total, breakdown, bound, inputs, work, tuple(times))


class _Int8Costs(Costs):
    """The what-if of int8 products: a 64^3 step costs half of the stock int8 kernel's 64 x 128 x 64."""

    def kernel_cycles(self, name: str, variant: str = "") -> float:
        if name == "gemm_step":
            return gemm_kernel_cycles(64, 128, 64, "int8") / 2
        return super().kernel_cycles(name, variant)


def _with_precision(costs: Costs, precision: str) -> Costs:
    if precision == "bf16":
        return costs
    if precision == "int8":
        return _Int8Costs(**vars(costs))
    raise ValueError(f"precision {precision!r} is not known; use bf16, or int8 for a what-if")
