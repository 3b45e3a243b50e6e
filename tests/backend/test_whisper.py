"""Whisper's encoder, all sizes: one region, nothing eager; and generation with a compiled encoder."""

from __future__ import annotations

import pytest
import torch
from comparing import assert_close, only_report
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from torch_xdna.cli.explain import encoder_config, explain_encoder
from torch_xdna.lowering.whisper import MODELS


def config(size: str, **changes) -> WhisperConfig:
    made = encoder_config(size)
    for key, value in changes.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize("size", MODELS)
def test_every_size_is_one_region(size):
    """One layer of each, on the meta device; `test_full_depth` has all layers of the deepest."""
    report = explain_encoder(config(size, encoder_layers=1))
    assert report.summary() == "encoder: 1 region, 0 eager ops", str(report)
    (region,) = report.region_list
    kinds = [type(op).__name__ for op in region.ops]
    layer = ["LayerNorm", *["Linear"] * 3, "Attention", "Linear", "LayerNorm", "Linear", "Linear"]
    assert kinds == ["Conv1d", "Conv1d", *layer, "LayerNorm"]
    width, heads, wide, mels = (getattr(MODELS[size], n) for n in ("width", "heads", "ffn", "mel"))
    assert (region.value(region.inputs[0]).rows, region.value(region.inputs[0]).cols) == (3000, mels)
    attention = region.ops[6]
    assert (attention.heads, attention.scale) == (heads, 0.125)
    assert region.param("layers.0.fc1.weight").shape == (wide, width)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_half_precision_and_both_attentions(dtype, attention):
    report = explain_encoder(config("tiny", encoder_layers=1), attention=attention, dtype=dtype, batch_size=3)
    assert report.summary() == "encoder: 1 region, 0 eager ops", str(report)


def test_full_depth():
    report = explain_encoder(config("large-v3-turbo"))
    assert report.summary() == "encoder: 1 region, 0 eager ops"
    assert len(report.region_list[0].ops) == 2 + 32 * 9 + 1


def test_hidden_states_leave_the_region_too():
    encoder = WhisperEncoder(config("tiny", encoder_layers=2, max_source_positions=20)).eval()
    x = torch.randn(1, 80, 40)
    with torch.no_grad():
        expected = encoder(x, output_hidden_states=True)
        encoder.compile(backend="xdna", options={"device": "emulator", "fallback": "error"})
        actual = encoder(x, output_hidden_states=True)
    assert_close(actual.hidden_states, expected.hidden_states)
    assert len(only_report().region_list[0].outputs) == 3


def test_attention_weights_are_given():
    changes = dict(encoder_layers=1, max_source_positions=20, _attn_implementation="eager")
    encoder = WhisperEncoder(config("tiny", **changes)).eval()
    x = torch.randn(2, 80, 40)
    with torch.no_grad():
        expected = encoder(x, output_attentions=True)
        encoder.compile(backend="xdna", options={"device": "emulator"})
        actual = encoder(x, output_attentions=True)
    assert_close(actual.attentions, expected.attentions)
    assert_close(actual[0], expected[0])


@pytest.mark.parametrize("size", ["tiny", "base", "small"])
def test_generation(size):
    """HF generate() with random weights: the encoder of that size, a decoder of one layer to save time."""
    made = config(size, encoder_layers=2, decoder_layers=1, decoder_ffn_dim=256, max_source_positions=150)
    made.decoder_attention_heads, made.vocab_size = made.encoder_attention_heads, 200
    special = dict(pad_token_id=1, bos_token_id=2, eos_token_id=3, decoder_start_token_id=4)
    for key, value in special.items():
        setattr(made, key, value)
    made.suppress_tokens = made.begin_suppress_tokens = None
    model = WhisperForConditionalGeneration(made).eval()
    keys = list(model.state_dict())
    mel = torch.randn(2, made.num_mel_bins, 300)
    settings = dict(max_new_tokens=5, do_sample=False)
    expected = model.generate(mel, **settings)
    model.model.encoder.compile(backend="xdna", options={"device": "emulator", "fallback": "error"})
    actual = model.generate(mel, **settings)
    assert actual.shape == expected.shape
    assert only_report().summary() == "encoder: 1 region, 0 eager ops"
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        hidden = model.model.encoder(mel)[0]
        model.model.encoder._compiled_call_impl = None
        assert_close(hidden, model.model.encoder(mel)[0])
    # The decoder is eager and the same: from the compiled encoder's result it must give the same tokens.
    model.model.encoder.forward = lambda *_, **__: BaseModelOutput(last_hidden_state=hidden)
    assert torch.equal(actual, model.generate(mel, **settings))
