"""The encoder's weights in a CTranslate2 model, by the names and in the shapes that its region has.

Quantized weights become fp32 again: CTranslate2 stores round(weight * scale), with one scale per row for int8 and one
for all for int16 (OpenNMT/CTranslate2, docs/quantization.md). The device rounds to bf16 what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torch_xdna.encoder import ct2
from torch_xdna.errors import XdnaError
from torch_xdna.lowering.whisper import EncoderConfig, encoder_config

# The region's name of a layer's linear -> CTranslate2's, and which of how many equal parts along the rows.
_LINEAR = {
    "self_attn.q_proj": ("self_attention/linear_0", 0, 3),
    "self_attn.k_proj": ("self_attention/linear_0", 1, 3),
    "self_attn.v_proj": ("self_attention/linear_0", 2, 3),
    "self_attn.out_proj": ("self_attention/linear_1", 0, 1),
    "fc1": ("ffn/linear_0", 0, 1),
    "fc2": ("ffn/linear_1", 0, 1),
}
_NORM = {"self_attn_layer_norm": "self_attention/layer_norm", "final_layer_norm": "ffn/layer_norm"}
_NORM_PART = {"weight": "gamma", "bias": "beta"}


@dataclass(frozen=True)
class Ct2Weights(Mapping[str, np.ndarray]):
    """Parameter name (as in `lowering`'s encoder region and in Hugging Face's WhisperEncoder) -> fp32 array, made
    when it is asked for, so that a large model is never in memory twice. `context`: rows of the position embedding."""

    config: EncoderConfig
    context: int
    variables: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, folder: str | Path) -> Ct2Weights:
        """Of a CTranslate2 folder (or its model.bin). Raises XdnaError."""
        path = Path(folder)
        path = path / "model.bin" if path.is_dir() else path
        return cls.of(ct2.variables(path), str(path))

    @classmethod
    def of(cls, found: Mapping[str, np.ndarray], path: str = "the model") -> Ct2Weights:
        """Of a model's variables (`ct2.variables`); `path` is for errors."""
        try:
            width, mel, _ = found["encoder/conv1/weight"].shape
            layers = len({name.split("/")[1] for name in found if name.startswith("encoder/layer_")})
            layers -= "encoder/layer_norm/gamma" in found
            config = encoder_config(
                {
                    "encoder_layers": layers,
                    "d_model": width,
                    "encoder_attention_heads": int(found["encoder/num_heads"]),
                    "encoder_ffn_dim": len(found["encoder/layer_0/ffn/linear_0/weight"]),
                    "num_mel_bins": mel,
                }
            )
            context = len(found["encoder/position_encodings/encodings"])
        except KeyError as error:
            raise XdnaError(f"{path} holds no Whisper encoder: {error.args[0]} is missing") from error
        except ValueError as error:
            raise XdnaError(f"the encoder in {path} can't run on the device: {error}") from error
        weights = cls(config, context, found)
        for name in weights:
            variable, _, _ = _variable(name)
            if variable not in found:
                raise XdnaError(f"{path} is not whole: {variable} is missing; get the model again")
        return weights

    def __getitem__(self, name: str) -> np.ndarray:
        variable, part, parts = _variable(name)
        value = self._floats(variable)
        rows = len(value) // parts
        return np.ascontiguousarray(value[part * rows : (part + 1) * rows])

    def __iter__(self) -> Iterator[str]:
        pairs = ("weight", "bias")
        yield from (f"conv{n}.{kind}" for n in (1, 2) for kind in pairs)
        yield "embed_positions.weight"
        for layer in range(self.config.layers):
            for part in (*_NORM, *_LINEAR):
                yield from (
                    f"layers.{layer}.{part}.{kind}"
                    for kind in pairs
                    if not (part.endswith("k_proj") and kind == "bias")  # Whisper's keys have none
                )
        yield from (f"layer_norm.{kind}" for kind in pairs)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _floats(self, name: str) -> np.ndarray:
        value = self.variables[name]
        if value.dtype == np.uint16:
            return (value.astype(np.uint32) << 16).view(np.float32)
        floats = value.astype(np.float32)
        if value.dtype in (np.int8, np.int16):
            scale = self.variables[f"{name}_scale"].astype(np.float32)
            floats /= scale.reshape(-1, *[1] * (value.ndim - 1)) if scale.ndim else scale
        return floats


def _variable(name: str) -> tuple[str, int, int]:
    """CTranslate2's variable, and which of how many parts of it."""
    if name == "embed_positions.weight":
        return "encoder/position_encodings/encodings", 0, 1
    rest, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)", rest)
    if layer is None:
        return f"encoder/{rest}/{_NORM_PART[kind] if rest == 'layer_norm' else kind}", 0, 1
    number, part = layer.groups()
    if part in _NORM:
        return f"encoder/layer_{number}/{_NORM[part]}/{_NORM_PART[kind]}", 0, 1
    linear, piece, pieces = _LINEAR[part]
    return f"encoder/layer_{number}/{linear}/{kind}", piece, pieces
