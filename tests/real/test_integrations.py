"""The compiled encoder inside Hugging Face's pipeline and long-form generation, and inside openai-whisper."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

from torch_xdna import reports
from torch_xdna.exported.sources import source
from torch_xdna.speech.audio import read

DATA = Path(__file__).parent / "data"
ENGLISH = (
    "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
)


def plain(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c.isspace()).split())


@pytest.fixture(scope="module")
def jfk() -> np.ndarray:
    return read(DATA / "jfk.flac", 16_000)


@pytest.fixture(scope="module")
def model(tiny_en: Path) -> WhisperForConditionalGeneration:
    torch._dynamo.reset()
    found = WhisperForConditionalGeneration.from_pretrained(tiny_en, dtype=torch.float32).eval()
    found.model.encoder.compile(backend="xdna", options={"device": "emulator", "fallback": "error"})
    return found


def test_the_pipeline_tells_words_at_their_times(tiny_en: Path, model, jfk: np.ndarray) -> None:
    processor = WhisperProcessor.from_pretrained(tiny_en)
    asr = pipeline("automatic-speech-recognition", model=model, tokenizer=processor.tokenizer,
                   feature_extractor=processor.feature_extractor)  # fmt: skip
    found = asr(jfk, return_timestamps="word")
    assert plain(found["text"]) == ENGLISH
    times = [moment for chunk in found["chunks"] for moment in chunk["timestamp"]]
    assert len(found["chunks"]) == 22 and times == sorted(times) and times[-1] <= 11.1
    assert any(report.region_list for report in reports())


def test_long_form_generation(tiny_en: Path, model, jfk: np.ndarray) -> None:
    """More than one window: Whisper's own sequential loop."""
    processor = WhisperProcessor.from_pretrained(tiny_en)
    audio = np.concatenate([jfk, np.zeros(8_000, np.float32)] * 4)
    inputs = processor(audio, sampling_rate=16_000, return_tensors="pt", truncation=False, padding="longest",
                       return_attention_mask=True)  # fmt: skip
    ids = model.generate(**inputs, return_timestamps=True)
    text = plain(processor.batch_decode(ids, skip_special_tokens=True)[0])
    assert text.count("ask what you can do for your country") >= 3


def test_an_assistant_drafts(tiny_en: Path, model, jfk: np.ndarray) -> None:
    """The words are those that the model alone writes; its own weights draft."""
    processor = WhisperProcessor.from_pretrained(tiny_en)
    assistant = WhisperForConditionalGeneration.from_pretrained(tiny_en, dtype=torch.float32).eval()
    features = processor(jfk, sampling_rate=16_000, return_tensors="pt").input_features
    ids = model.generate(features, assistant_model=assistant)
    assert plain(processor.batch_decode(ids, skip_special_tokens=True)[0]) == ENGLISH


# Hugging Face's names -> openai-whisper's.
NAMES = (
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"final_layer_norm", "mlp_ln"),
    (r"self_attn", "attn"),
    (r"encoder_attn", "cross_attn"),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
    (r"^encoder\.layer_norm", "encoder.ln_post"),
    (r"^decoder\.layer_norm", "decoder.ln"),
    (r"embed_positions\.weight", "positional_embedding"),
    (r"embed_tokens", "token_embedding"),
)


@pytest.fixture(scope="module")
def openai(tiny_en: Path):
    """openai-whisper's model with its own weights, which came by way of the other formats."""
    whisper = pytest.importorskip("whisper")
    state = {}
    for name, value in load_file(tiny_en / "model.safetensors").items():
        for pattern, new in NAMES:
            name = re.sub(pattern, new, name)
        state[name] = value.float()
    dims = whisper.model.ModelDimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)
    found = whisper.model.Whisper(dims)
    missing, unexpected = found.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"decoder.mask"}
    return found.eval()


def test_openai_whisper(openai, jfk: np.ndarray, tiny_en: Path) -> None:
    torch._dynamo.reset()
    exported = source(openai)
    for name, value in source(str(tiny_en)).weights.items():
        np.testing.assert_array_equal(exported.weights[name], value)
    openai.encoder.compile(backend="xdna", options={"device": "emulator"})
    found = openai.transcribe(jfk, word_timestamps=True, fp16=False, temperature=0.0)
    assert plain(found["text"]) == ENGLISH
    words = [word for segment in found["segments"] for word in segment["words"]]
    assert len(words) == 22 and words[-1]["end"] <= 11.1
    beams = openai.transcribe(jfk, beam_size=3, fp16=False, temperature=0.0)
    assert plain(beams["text"]) == ENGLISH
    assert sum(len(report.region_list) for report in reports()) >= 1
    torch._dynamo.reset()
