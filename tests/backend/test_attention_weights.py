"""Attention weights that a caller asks for: transformers' word timestamps ask the encoder for those of each layer and
never look at them. The encoder stays one region, and nothing warns. (It was two regions and two warnings.)"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, assert_like_eager, compiled, only_report
from torch import Tensor

import torch_xdna


def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, 64)).transpose(1, 2)


def _attention(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    q = _heads(F.linear(x, w) * 0.125)
    weights = F.softmax(q @ _heads(x).mT, -1)
    return F.linear((weights @ _heads(x)).transpose(1, 2).flatten(2), w), weights


def test_both_the_result_and_the_weights() -> None:
    x, w = torch.randn(2, 20, 128), torch.randn(128, 128) * 128**-0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = assert_like_eager(_attention, x, w, regions=1)
    aside = [row for row in report.rows if row.where == "eager"]
    assert aside and all("output_attentions=True" in row.reason for row in aside)


def test_no_fallback_is_an_error_only_where_something_waits_for_it() -> None:
    x, w = torch.randn(2, 20, 128), torch.randn(128, 128) * 128**-0.5
    strict = {"device": "emulator", "fallback": "error"}
    out, weights = torch.compile(_attention, backend="xdna", options=strict)(x, w)
    assert_close(out, _attention(x, w)[0])
    assert_close(weights, _attention(x, w)[1])

    def used(x: Tensor, w: Tensor) -> Tensor:
        out, weights = _attention(x, w)
        return out + weights.sin().sum()

    with pytest.raises(Exception, match=r"aten.sin of .* would run eager on the CPU"):
        torch.compile(used, backend="xdna", options=strict)(x, w)


def test_weights_that_something_else_computes_with() -> None:
    """They are a value like any other then: the device computes with them, what the device has not warns."""

    def fn(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        out, weights = _attention(x, w)
        return out, F.gelu(weights).sin()

    x, w = torch.randn(2, 20, 128), torch.randn(128, 128) * 128**-0.5
    report = assert_like_eager(fn, x, w)
    where = {row.op: row.where for row in report.rows}
    assert (where["aten.gelu"], where["aten.sin"]) == ("device", "eager")
    assert [row.reason for row in report.rows if row.op == "aten.sin"] == ["the device has no sin"]


def test_a_layer_whose_weights_are_all_that_is_asked_for() -> None:
    report = assert_like_eager(
        lambda x, w: _attention(x, w)[1], torch.randn(2, 20, 128), torch.randn(128, 128) * 128**-0.5
    )
    assert not any("output_attentions" in row.reason for row in report.rows)


def test_the_encoder_asked_for_attentions() -> None:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes = {"d_model": 128, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 128}
    encoder = WhisperEncoder(
        WhisperConfig(**sizes, max_source_positions=20, attn_implementation="eager")
    ).eval()
    mel = torch.randn(1, 80, 40)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("error", message="xdna: ")
        expected = encoder(mel, output_attentions=True)
        found = compiled(encoder)(mel, output_attentions=True)
    assert_close(found.last_hidden_state, expected.last_hidden_state)
    assert len(found.attentions) == 2
    assert_close(found.attentions, expected.attentions)
    report = only_report()
    assert report.regions == 1
    main = {row.name for row in report.rows if row.where == "device"}
    assert {"conv1", "layers.1.self_attn", "layers.1.fc2", "layer_norm"} <= main


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("fallback", ["eager", "error"])
def test_word_timestamps_of_the_pipeline(monkeypatch: pytest.MonkeyPatch, fallback: str) -> None:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

    from torch_xdna import speech
    from torch_xdna.speech import audio

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # the pipeline sets it
    model: Any = WhisperForConditionalGeneration.from_pretrained(speech.CHECKPOINT, dtype=torch.float32)
    model.eval().generation_config.alignment_heads = [[0, 0], [1, 1]]
    processor = WhisperProcessor.from_pretrained(speech.CHECKPOINT)
    asr: Any = pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    samples = audio.read(speech.clips()[0].path, 16_000)
    expected = asr(samples.copy(), return_timestamps="word")
    options = {"device": "emulator", "fallback": fallback}
    model.model.encoder.compile(backend="xdna", options=options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = asr(samples.copy(), return_timestamps="word")
    assert found["text"] == expected["text"] and len(found["chunks"]) == len(expected["chunks"])
    assert not [w for w in said if "xdna" in str(w.message)]
    assert [report.regions for report in torch_xdna.reports()] == [1]
