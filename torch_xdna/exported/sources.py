"""An encoder's sizes and weights out of whatever holds them: modules of Hugging Face's and openai-whisper's, folders of
Hugging Face's and CTranslate2's formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torch_xdna.errors import XdnaError
from torch_xdna.lowering.whisper import EncoderConfig, encoder_config

# openai-whisper's names -> Hugging Face's, which the region of an encoder has as well.
_OPENAI = (
    (r"blocks\.(\d+)\.attn_ln\.", r"layers.\1.self_attn_layer_norm."),
    (r"blocks\.(\d+)\.attn\.query\.", r"layers.\1.self_attn.q_proj."),
    (r"blocks\.(\d+)\.attn\.key\.", r"layers.\1.self_attn.k_proj."),
    (r"blocks\.(\d+)\.attn\.value\.", r"layers.\1.self_attn.v_proj."),
    (r"blocks\.(\d+)\.attn\.out\.", r"layers.\1.self_attn.out_proj."),
    (r"blocks\.(\d+)\.mlp_ln\.", r"layers.\1.final_layer_norm."),
    (r"blocks\.(\d+)\.mlp\.0\.", r"layers.\1.fc1."),
    (r"blocks\.(\d+)\.mlp\.2\.", r"layers.\1.fc2."),
    (r"ln_post\.", r"layer_norm."),
    (r"positional_embedding$", r"embed_positions.weight"),
)


class Source(NamedTuple):
    """`context`: the encoder's own; `weights`: fp32, by Hugging Face's names; `name`: for the manifest."""

    config: EncoderConfig
    context: int
    weights: Mapping[str, np.ndarray]
    name: str


def source(encoder: Any) -> Source:
    """Of a module (an encoder, or a model that has one) or of a folder or hub id. Raises XdnaError."""
    if isinstance(encoder, (str, Path)):
        return _of_name(encoder)
    for _ in range(3):  # ForConditionalGeneration -> WhisperModel -> encoder; openai's Whisper -> encoder
        inner = getattr(encoder, "encoder", None) or getattr(encoder, "model", None)
        encoder = encoder if inner is None else inner
    if not hasattr(encoder, "state_dict"):
        raise XdnaError(
            f"a {type(encoder).__name__} can't be exported: give a Whisper encoder (model.model.encoder, or "
            "openai-whisper's model.encoder), or a model's folder"
        )
    return _of_state(encoder.state_dict(), getattr(encoder, "config", None), type(encoder).__name__)


def _of_name(name: str | Path) -> Source:
    from torch_xdna.speech.ct2_models import is_ct2

    if is_ct2(name):
        from torch_xdna.encoder.weights import Ct2Weights

        found = Ct2Weights.read(name)
        return Source(found.config, found.context, found, Path(name).name)
    from torch_xdna.speech.loading import load_whole

    model, _ = load_whole(name)
    return _of_state(model.model.encoder.state_dict(), model.config, Path(name).name)


def _of_state(state: Mapping[str, Any], config: Any, name: str) -> Source:
    state = {key.removeprefix("_orig_mod."): value for key, value in state.items()}
    weights = {_renamed(key): value.detach().float().cpu().numpy() for key, value in state.items()}
    try:
        width, mel, _ = weights["conv1.weight"].shape
        layers = sum(bool(re.fullmatch(r"layers\.\d+\.fc1\.weight", key)) for key in weights)
        heads = getattr(config, "encoder_attention_heads", None) or width // 64  # every Whisper of OpenAI's
        sizes = encoder_config(
            {
                "encoder_layers": layers,
                "d_model": width,
                "encoder_attention_heads": heads,
                "encoder_ffn_dim": len(weights["layers.0.fc1.weight"]),
                "num_mel_bins": mel,
            }
        )
        return Source(sizes, len(weights["embed_positions.weight"]), weights, name)
    except KeyError as error:
        raise XdnaError(
            f"a {name} can't be exported: it has no {error.args[0]}, so it is no Whisper encoder"
        ) from error
    except ValueError as error:
        raise XdnaError(f"this {name} can't be exported: {error}") from error


def _renamed(key: str) -> str:
    for pattern, name in _OPENAI:
        if re.match(pattern, key):
            return re.sub(pattern, name, key)
    return key
