"""Modelled time of a Whisper encoder on our overlay: the closed form over its region, one dispatch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowering import ops
from lowering.time.costs import Costs
from lowering.time.estimate import Estimate, dispatch_seconds
from lowering.time.gemm import checked_clock, gemm_kernel_cycles
from lowering.time.overlay_ops import OpTime, time_region

LARGEST_CONTEXT = 1_000_000  # frames; Whisper has 1500
WINDOW_S = 30.0  # audio that context 1500 stands for


@dataclass(frozen=True)
class EncoderConfig:
    """What the time depends on: `mel` channels, `width` of the model, `ffn` hidden units."""

    name: str
    layers: int
    width: int
    heads: int
    ffn: int
    mel: int = 80


MODELS = {
    config.name: config
    for config in (
        EncoderConfig("tiny", 4, 384, 6, 1536),
        EncoderConfig("base", 6, 512, 8, 2048),
        EncoderConfig("small", 12, 768, 12, 3072),
        EncoderConfig("medium", 24, 1024, 16, 4096),
        EncoderConfig("large-v3-turbo", 32, 1280, 20, 5120, 128),
        EncoderConfig("large-v3", 32, 1280, 20, 5120, 128),
    )
}


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
    costs: Costs | None = None,
) -> EncoderEstimate:
    """Modelled seconds of one encoder pass on one clip, everything in one dispatch.

    `name_or_config`: a key of `MODELS` (also `openai/whisper-base`), an `EncoderConfig`, or a Hugging Face
    configuration (object or mapping). `context`: encoder frames, 1500 for 30 s. `precision` bf16 is what the
    overlay computes; int8 is a what-if: the products at the stock int8 kernel's rate. `better_gemm`: the
    products at the best published bf16 rate, a what-if as well. Raises ValueError.
    """
    config = encoder_config(name_or_config)
    if columns not in (1, 2, 4):
        raise ValueError(f"{columns} columns: the overlay has 1, 2 or 4")
    if not isinstance(context, int) or not 1 <= context <= LARGEST_CONTEXT:
        raise ValueError(
            f"context {context!r}: frames are a whole number from 1 to {LARGEST_CONTEXT}, 1500 for 30 s"
        )
    costs = costs or Costs(checked_clock(clock_ghz), better_gemm=better_gemm)
    times = time_region(encoder_region(config, context), _with_precision(costs, precision), columns)
    breakdown = {name: 0.0 for name in ("compute", "stream", "ddr", "control")}
    for op in times:
        breakdown[op.bound] += op.seconds - op.boundary
    breakdown["boundary"] = sum(op.boundary for op in times)
    breakdown["dispatch"] = dispatch_seconds("stream")
    inputs = {
        "op": "encoder", "model": config.name, "context": context, "clock_ghz": costs.clock_ghz,
        "columns": columns, "precision": precision, "better_gemm": costs.better_gemm,
    }  # fmt: skip
    bound = max(("compute", "stream", "ddr", "control"), key=lambda name: breakdown[name])
    total = sum(breakdown.values())
    work = 2.0 * sum(op.macs for op in times)
    return EncoderEstimate(total, breakdown, bound, inputs, work, tuple(times))


def encoder_config(given: str | EncoderConfig | Mapping[str, Any] | Any) -> EncoderConfig:
    """A configuration from a name, a mapping or a Hugging Face configuration. Raises ValueError."""
    if isinstance(given, EncoderConfig):
        return given
    if isinstance(given, str):
        name = given.rpartition("/")[2].removeprefix("whisper-").removesuffix(".en")
        name = {"large": "large-v3", "turbo": "large-v3-turbo"}.get(name, name)
        if name not in MODELS:
            known = ", ".join(MODELS)
            raise ValueError(f"model {given!r} is not known; use one of {known}, or a configuration")
        return MODELS[name]

    def read(key: str) -> int:
        value = given.get(key) if isinstance(given, Mapping) else getattr(given, key, None)
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"the configuration's {key} is {value!r}: a Whisper encoder has a whole number there"
            )
        return value

    config = EncoderConfig(
        "given", read("encoder_layers"), read("d_model"), read("encoder_attention_heads"),
        read("encoder_ffn_dim"), read("num_mel_bins"), )  # fmt: skip
    if config.width != 64 * config.heads:
        raise ValueError(
            f"width {config.width} with {config.heads} heads: the overlay's attention computes heads of 64, as in "
            "every Whisper model"
        )
    return config


def encoder_region(config: EncoderConfig, context: int = 1500) -> ops.Region:
    """The region of a Whisper encoder as the matcher finds it: two convolutions, layers, the final norm."""
    values: list[ops.Value] = []
    params: dict[str, tuple[int, ...]] = {}
    listed: list[ops.Op] = []
    width, ffn = config.width, config.ffn

    def value(rows: int, cols: int, name: str = "") -> int:
        values.append(ops.Value(len(values), rows, cols, name))
        return len(values) - 1

    def param(name: str, *shape: int) -> str:
        params[name] = shape
        return name

    def norm(x: int, name: str) -> int:
        out = value(context, width, name)
        gamma, beta = param(f"{name}.weight", width), param(f"{name}.bias", width)
        listed.append(ops.LayerNorm(out, x, gamma, beta, name=name))
        return out

    def linear(
        x: int, n: int, name: str, *, bias: bool = True, gelu: bool = False, residual: int | None = None
    ) -> int:
        out = value(context, n, name)
        weight = param(f"{name}.weight", n, values[x].cols)
        added = param(f"{name}.bias", n) if bias else None
        listed.append(ops.Linear(out, x, weight, added, gelu, residual, name=name))
        return out

    def conv(x: int, stride: int, name: str, residual: str | None = None) -> int:
        out = value(values[x].rows // stride, width, name)
        weight, bias = param(f"{name}.weight", width, values[x].cols, 3), param(f"{name}.bias", width)
        listed.append(ops.Conv1d(out, x, weight, bias, stride, True, residual, name=name))
        return out

    mel = value(2 * context, config.mel, "mel")
    x = conv(mel, 1, "conv1")
    x = conv(x, 2, "conv2", param("embed_positions.weight", context, width))
    for index in range(config.layers):
        at = f"layers.{index}"
        y = norm(x, f"{at}.self_attn_layer_norm")
        q = linear(y, width, f"{at}.self_attn.q_proj")
        k = linear(y, width, f"{at}.self_attn.k_proj", bias=False)
        v = linear(y, width, f"{at}.self_attn.v_proj")
        y = value(context, width, f"{at}.attention")
        listed.append(ops.Attention(y, q, k, v, config.heads, name=f"{at}.self_attn"))
        x = linear(y, width, f"{at}.self_attn.out_proj", residual=x)
        y = norm(x, f"{at}.final_layer_norm")
        y = linear(y, ffn, f"{at}.fc1", gelu=True)
        x = linear(y, width, f"{at}.fc2", residual=x)
    out = norm(x, "layer_norm")
    described = tuple(ops.Param(name, shape) for name, shape in params.items())
    return ops.Region(tuple(values), (mel,), (out,), described, tuple(listed), name=f"whisper-{config.name}")


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
