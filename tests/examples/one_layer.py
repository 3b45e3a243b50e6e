"""One layer of Whisper's encoder, compiled and compared with eager: how to look at a part of a model.

python tests/examples/one_layer.py [emulator|array]
"""

from __future__ import annotations

import sys

import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

import torch_xdna

ROWS, WIDTH = 100, 128


def main(device: str) -> None:
    torch.manual_seed(0)
    config = WhisperConfig(d_model=WIDTH, encoder_attention_heads=WIDTH // 64, encoder_ffn_dim=2 * WIDTH)
    config._attn_implementation = "sdpa"
    layer = WhisperEncoderLayer(config).eval()
    x = torch.randn(1, ROWS, WIDTH)
    with torch.no_grad():
        expected = layer(x, None)
        layer.compile(backend="xdna", options={"device": device})
        actual = layer(x, None)
        print(torch_xdna.explain(layer, x, None))  # each op: where, and why
    expected, actual = (y[0] if isinstance(y, tuple) else y for y in (expected, actual))
    distance = (actual - expected).norm() / expected.norm()
    print(f"relative distance from eager fp32: {distance:.5f} (one rounding to bf16: up to 0.002)")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "emulator")
