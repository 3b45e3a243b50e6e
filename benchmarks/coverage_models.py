"""The encoders of the coverage table: transformers' own classes and configurations, with random weights.

Each has the sizes of a published model for the share of its arithmetic, and `small` ones (two layers, narrow,
short) for its numbers. The table of `MODELS` is the list; a model is built on whatever device torch's default is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Model:
    """`classes`: names in transformers, of the model and its configuration; `config`: the published sizes, where they
    are not the defaults; `small`: what a small model has in their place; `inputs(small)`: keyword arguments of a call;
    `module`: where the encoder is."""

    name: str
    classes: tuple[str, str]
    inputs: Callable[[bool], Inputs]
    config: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""

    def build(self, small: bool) -> nn.Module:
        import transformers

        kind, config = (getattr(transformers, name) for name in self.classes)
        made = config(**{**self.config, **(self.small if small else {})}, attn_implementation="sdpa")
        return kind(made).get_submodule(self.module).eval()


def mels(bands: int, frames: int, small_frames: int) -> Callable[[bool], Inputs]:
    return lambda small: {"input_features": torch.randn(1, bands, small_frames if small else frames)}


def features(width: int, frames: int, small_frames: int) -> Callable[[bool], Inputs]:
    """Frames first, as newer speech models have it."""
    return lambda small: {"input_features": torch.randn(1, small_frames if small else frames, width)}


def samples(seconds: float, small_seconds: float) -> Callable[[bool], Inputs]:
    return lambda small: {"input_values": torch.randn(1, int(16000 * (small_seconds if small else seconds)))}


def tokens(padding: bool = True) -> Callable[[bool], Inputs]:
    """Two sentences, the second one shorter: what a tokenizer gives."""

    def make(small: bool) -> Inputs:
        length = 40 if small else 128
        mask = torch.ones(2, length, dtype=torch.long)
        if padding:
            mask[1, length - length // 3 :] = 0
        return {"input_ids": torch.randint(10, 90, (2, length)), "attention_mask": mask}

    return make


def pictures(small_side: int = 64, side: int = 224) -> Callable[[bool], Inputs]:
    return lambda small: {"pixel_values": torch.randn(1, 3, *(2 * (small_side if small else side,)))}


_WHISPER_SMALL = dict(
    encoder_layers=2,
    d_model=128,
    encoder_attention_heads=2,
    encoder_ffn_dim=256,
    max_source_positions=100,
    decoder_attention_heads=2,
    decoder_ffn_dim=256,
)
_WHISPER_ENCODER = {k: v for k, v in _WHISPER_SMALL.items() if "decoder" not in k}
_NARROW = dict(num_hidden_layers=2, hidden_size=128, num_attention_heads=2, intermediate_size=256)
_LARGE = dict(
    encoder_layers=32,
    d_model=1280,
    encoder_attention_heads=20,
    encoder_ffn_dim=5120,
    decoder_attention_heads=20,
)
_TEXT = dict(**_NARROW, vocab_size=100)

MODELS: tuple[Model, ...] = (
    Model("Whisper base", ("WhisperModel", "WhisperConfig"), mels(80, 3000, 200), module="encoder",
          config=dict(encoder_layers=6, d_model=512, encoder_attention_heads=8, encoder_ffn_dim=2048,
                      decoder_attention_heads=8),
          small=dict(**_WHISPER_SMALL, decoder_layers=1)),
    Model("Whisper large-v3-turbo", ("WhisperModel", "WhisperConfig"), mels(128, 3000, 200), module="encoder",
          config=dict(**_LARGE, num_mel_bins=128, decoder_layers=4), small=_WHISPER_SMALL),
    Model("Distil-Whisper large-v3", ("WhisperModel", "WhisperConfig"), mels(128, 3000, 200), module="encoder",
          config=dict(**_LARGE, num_mel_bins=128, decoder_layers=2), small=_WHISPER_SMALL),
    Model("Voxtral", ("VoxtralEncoder", "VoxtralEncoderConfig"), mels(128, 3000, 200),
          small=dict(num_hidden_layers=2, hidden_size=128, num_attention_heads=2, intermediate_size=256,
                     max_source_positions=100)),
    Model("Qwen2-Audio", ("Qwen2AudioEncoder", "Qwen2AudioEncoderConfig"), mels(128, 3000, 200),
          small=_WHISPER_ENCODER),
    Model("wav2vec2 base", ("Wav2Vec2Model", "Wav2Vec2Config"), samples(5, 1), small=_NARROW),
    Model("HuBERT base", ("HubertModel", "HubertConfig"), samples(5, 1), small=_NARROW),
    Model("Data2Vec audio", ("Data2VecAudioModel", "Data2VecAudioConfig"), samples(5, 1), small=_NARROW),
    Model("Moonshine tiny", ("MoonshineModel", "MoonshineConfig"), samples(5, 1), module="encoder",
          small=dict(encoder_num_hidden_layers=2)),
    Model("Parakeet", ("ParakeetEncoder", "ParakeetEncoderConfig"), features(80, 500, 120),
          small=dict(num_hidden_layers=2, hidden_size=256, num_attention_heads=4, intermediate_size=512)),
    Model("wav2vec2-BERT", ("Wav2Vec2BertModel", "Wav2Vec2BertConfig"), features(160, 250, 60),
          small=_NARROW),
    Model("SeamlessM4T speech", ("SeamlessM4TModel", "SeamlessM4TConfig"), features(160, 250, 60),
          module="speech_encoder",
          small=dict(hidden_size=128, speech_encoder_layers=2, speech_encoder_attention_heads=2,
                     speech_encoder_intermediate_size=256, encoder_layers=1, decoder_layers=1,
                     t2u_encoder_layers=1, t2u_decoder_layers=1)),
    Model("BERT base", ("BertModel", "BertConfig"), tokens(), small=_TEXT),
    Model("DistilBERT", ("DistilBertModel", "DistilBertConfig"), tokens(),
          small=dict(n_layers=2, dim=128, n_heads=2, hidden_dim=256, vocab_size=100)),
    Model("MiniLM-L6", ("BertModel", "BertConfig"), tokens(),
          config=dict(num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536),
          small=dict(num_hidden_layers=2, vocab_size=100)),
    Model("ModernBERT base", ("ModernBertModel", "ModernBertConfig"), tokens(),
          small=dict(**_TEXT, pad_token_id=0)),
    Model("T5 encoder", ("T5EncoderModel", "T5Config"), tokens(), module="encoder",
          small=dict(num_layers=2, d_model=128, num_heads=2, d_kv=64, d_ff=256, vocab_size=100)),
    Model("ViT base", ("ViTModel", "ViTConfig"), pictures(), small=dict(**_NARROW, image_size=64)),
    Model("CLIP vision", ("CLIPVisionModel", "CLIPVisionConfig"), pictures(),
          small=dict(**_NARROW, image_size=64)),
    Model("SigLIP vision", ("SiglipVisionModel", "SiglipVisionConfig"), pictures(),
          small=dict(**_NARROW, image_size=64)),
    Model("DINOv2 base", ("Dinov2Model", "Dinov2Config"), pictures(56),
          config=dict(image_size=224), small=dict(num_hidden_layers=2, hidden_size=128,
                                                  num_attention_heads=2, image_size=56)),
)  # fmt: skip
