"""A Whisper in CTranslate2's format as Hugging Face's state dict. int8 weights come with a `weight_scale` per row by
which they are divided; the file itself is read by `torch_xdna.encoder.ct2`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch

# CTranslate2's name, Hugging Face's names of its equal parts along the rows. Whisper's keys have no bias.
_SELF = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_LAYER = {
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": _SELF,
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_OUTSIDE = {
    "embeddings/weight": "embed_tokens.weight",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
    **{f"conv{n}/{part}": f"conv{n}.{part}" for n in (1, 2) for part in ("weight", "bias")},
}
_PARTS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def state_dict(found: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The weights of WhisperForConditionalGeneration (without the tied `proj_out`)."""
    return {
        name: torch.from_numpy(np.array(value))
        for variable, value in found.items()
        for name, value in _renamed(variable, _scaled(found, variable, value))
    }


def _scaled(found: dict[str, np.ndarray], name: str, value: np.ndarray) -> np.ndarray:
    if value.dtype != np.int8 or value.ndim == 0:
        return value
    scale = found[f"{name}_scale"].astype(np.float32)
    return value.astype(np.float32) / scale.reshape(-1, *[1] * (value.ndim - 1))


def _renamed(variable: str, value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    part, _, rest = variable.partition("/")
    if rest in _OUTSIDE:
        yield f"model.{part}.{_OUTSIDE[rest]}", value
    elif match := re.fullmatch(r"layer_(\d+)/(.+)/(weight|bias|gamma|beta)", rest):
        number, name, kind = match.groups()
        targets = _LAYER[name]
        for target, piece in zip(targets, np.split(value, len(targets))):
            if not (target.endswith("k_proj") and kind == "bias"):
                yield f"model.{part}.layers.{number}.{target}.{_PARTS[kind]}", piece
