"""Whole Whisper encoders with random weights, through torch.compile, against eager fp32."""

from __future__ import annotations

import pytest
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

SIZES = {"tiny": (384, 4), "base": (512, 6), "small": (768, 12)}


@pytest.mark.parametrize("size", SIZES)
def test_encoder_is_as_close_to_eager_as_bf16_allows(size: str) -> None:
    width, layers = SIZES[size]
    torch.manual_seed(0)
    torch._dynamo.reset()
    config = WhisperConfig(
        d_model=width, encoder_layers=layers, encoder_attention_heads=width // 64, encoder_ffn_dim=4 * width
    )
    model = WhisperEncoder(config).eval()
    mel = torch.randn(1, 80, 3000)
    with torch.no_grad():
        expected = model(mel).last_hidden_state
        model.compile(backend="xdna", options={"device": "emulator", "fallback": "error"})
        actual = model(mel).last_hidden_state
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    assert torch.isfinite(actual).all()
    cosine = torch.nn.functional.cosine_similarity(actual.flatten(), expected.flatten(), dim=0)
    assert cosine >= 0.999
    assert (actual - expected).abs().max() <= 0.1 * expected.abs().max()
