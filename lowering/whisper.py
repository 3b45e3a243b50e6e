"""Whisper's encoder as a region, and the sizes that OpenAI published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch_xdna.lowering import ops


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


def encoder_config(given: str | EncoderConfig | Mapping[str, Any] | Any) -> EncoderConfig:
    """A configuration from what is `given`: a size's name, a mapping or a Hugging Face configuration.

    Raises ValueError for what is none of these, or no Whisper's.
    """
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
    """The region of a Whisper encoder as the matcher finds it: two convolutions, layers, the final norm.

    `config`: its sizes; `context`: rows of the result, half the frames of the mel spectrogram."""
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
        listed.append(
            ops.Linear(out, x, weight, added, ops.Activation.GELU if gelu else None, residual, name=name)
        )
        return out

    def conv(x: int, stride: int, name: str, residual: str | None = None) -> int:
        out = value(values[x].rows // stride, width, name)
        weight, bias = param(f"{name}.weight", width, values[x].cols, 3), param(f"{name}.bias", width)
        listed.append(ops.Conv1d(out, x, weight, bias, stride, ops.Activation.GELU, residual, name=name))
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
