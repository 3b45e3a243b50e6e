"""The reader of CTranslate2's format, on a file written here and on OpenAI's own weights."""

from __future__ import annotations

import struct
from pathlib import Path

import ct2_weights
import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from torch_xdna.encoder import ct2
from torch_xdna.errors import XdnaError


def _file(values: dict[str, np.ndarray], version: int = 6) -> bytes:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    kinds = {np.dtype(kind): number for number, kind in ct2.TYPES.items()}
    out = struct.pack("<I", version) + string("WhisperSpec") + struct.pack("<II", 3, len(values))
    for name, value in values.items():
        out += string(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        out += struct.pack("<BI", kinds[value.dtype], value.nbytes) + value.tobytes()
    return out + struct.pack("<I", 0)


def test_stacked_and_quantized_weights_come_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stacked = rng.standard_normal((12, 4)).astype(np.float16)
    quantized, scale = rng.integers(-127, 128, (4, 4)).astype(np.int8), np.float32([2, 4, 8, 16])
    values = {
        "encoder/num_heads": np.int16(2),
        "encoder/layer_1/self_attention/linear_0/weight": stacked,
        "encoder/layer_1/self_attention/linear_0/bias": stacked[:, 0].copy(),
        "decoder/layer_0/attention/linear_2/weight": quantized,
        "decoder/layer_0/attention/linear_2/weight_scale": scale,
        "decoder/layer_0/attention/layer_norm/gamma": scale,
    }
    path = tmp_path / "model.bin"
    path.write_bytes(_file(values))
    found = ct2_weights.state_dict(ct2.variables(path))
    attention = "model.encoder.layers.1.self_attn"
    assert set(found) == {
        *(f"{attention}.{part}_proj.weight" for part in "qkv"),
        *(f"{attention}.{part}_proj.bias" for part in "qv"),
        "model.decoder.layers.0.encoder_attn.out_proj.weight",
        "model.decoder.layers.0.encoder_attn_layer_norm.weight",
    }
    np.testing.assert_array_equal(found[f"{attention}.k_proj.weight"], stacked[4:8])
    np.testing.assert_array_equal(found[f"{attention}.v_proj.bias"], stacked[8:, 0])
    np.testing.assert_array_equal(
        found["model.decoder.layers.0.encoder_attn.out_proj.weight"], quantized / scale[:, None]
    )


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(_file({}, version=5))
    with pytest.raises(XdnaError, match="version 5"):
        ct2.variables(path)


@pytest.mark.parametrize("model", ["tiny_en", "base"])
def test_every_weight_of_the_real_models_is_there(model: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    whisper, info = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert {weight.dtype for weight in whisper.parameters()} == {torch.float32}
