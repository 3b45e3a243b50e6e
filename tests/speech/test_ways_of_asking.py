"""The shipped model in all the ways that programs ask a multilingual Whisper: language, task, earlier text, word times,
silence, other programs. The encoder runs eager here: the decoder's prompts are what is tried."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from torch_xdna import speech
from torch_xdna.speech.audio import read

CLIPS = [clip for clip in speech.clips() if clip.noise_db is None][:10]
RATE = 16_000


@pytest.fixture(scope="module")
def model() -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(speech.CHECKPOINT, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor() -> WhisperProcessor:
    return WhisperProcessor.from_pretrained(speech.CHECKPOINT)


@pytest.fixture(scope="module")
def features(processor: WhisperProcessor) -> torch.Tensor:
    return _features(processor, [read(clip.path, RATE) for clip in CLIPS])


def _features(processor: WhisperProcessor, samples: list[np.ndarray]) -> torch.Tensor:
    return processor.feature_extractor(samples, sampling_rate=RATE, return_tensors="pt").input_features


def _rate(processor: WhisperProcessor, ids: torch.Tensor) -> float:
    heard = [text.strip() for text in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return jiwer.wer([clip.text for clip in CLIPS], heard)


ASKED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "English": {"language": "en", "task": "transcribe"},
    "a translation": {"language": "en", "task": "translate"},
    "another language": {"language": "es", "task": "transcribe"},
    "times": {"language": "en", "return_timestamps": True},
    "beams": {"num_beams": 3},
}


@pytest.mark.parametrize("asked", ASKED)
def test_options_of_hugging_face(model, processor, features: torch.Tensor, asked: str) -> None:
    """Whatever is asked, it writes the English that it hears."""
    assert _rate(processor, model.generate(features, **ASKED[asked])) <= 0.06


@pytest.mark.parametrize("length", [5, 60, 200])
def test_earlier_text(model, processor, features: torch.Tensor, length: int) -> None:
    """<|startofprev|> and words: no part of them is written again, however long."""
    earlier = " ".join(clip.text for clip in speech.clips()[20:]).split()[:length]
    prompt = processor.get_prompt_ids(" ".join(earlier), return_tensors="pt")
    ids = model.generate(features, language="en", prompt_ids=prompt)
    assert _rate(processor, ids[:, len(prompt) :] if ids[0, 0] == prompt[0] else ids) <= 0.06


def test_the_language_is_detected(model, features: torch.Tensor) -> None:
    english = model.generation_config.lang_to_id["<|en|>"]
    assert model.detect_language(features).tolist() == [english] * len(CLIPS)


def test_silence_and_noise_have_no_speech(model, processor, features: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    silent = [level * rng.standard_normal(5 * RATE).astype(np.float32) for level in (0.0, 0.001, 0.03)]
    start = model.generation_config.decoder_start_token_id
    nobody = model.generation_config.no_timestamps_token_id - 1  # where Whisper's code looks for it

    def chances(found: torch.Tensor) -> list[float]:
        with torch.inference_mode():
            logits = model(found, decoder_input_ids=torch.full((len(found), 1), start)).logits
        return logits[:, 0].softmax(-1)[:, nobody].tolist()

    assert min(chances(_features(processor, silent))) > 0.6 and max(chances(features)) < 0.3


def test_words_have_times(model, processor) -> None:
    clip = CLIPS[0]
    features = processor.feature_extractor(
        read(clip.path, RATE), sampling_rate=RATE, return_tensors="pt", return_attention_mask=True
    )
    found = model.generate(
        features.input_features,
        attention_mask=features.attention_mask,
        return_token_timestamps=True,
        language="en",
    )
    text = [
        i
        for i, token in enumerate(found["sequences"][0].tolist())
        if token < processor.tokenizer.eos_token_id
    ]
    times = [float(found["token_timestamps"][0][i]) for i in text]
    assert times == sorted(times) and len(times) == len(clip.text.split())
    assert times[0] == pytest.approx(0.3, abs=0.4) and times[-1] > 0.6 * clip.seconds


def test_ctranslate2_takes_it(processor, features: torch.Tensor, tmp_path: Path) -> None:
    """The runtime under faster-whisper, converted as its documentation says."""
    ctranslate2 = pytest.importorskip(
        "ctranslate2", reason="ctranslate2 is not installed (the extra `bench`)"
    )
    converter = ctranslate2.converters.TransformersConverter(
        speech.CHECKPOINT, copy_files=["tokenizer.json", "preprocessor_config.json"]
    )
    converter.convert(str(tmp_path / "converted"))
    converted = ctranslate2.models.Whisper(
        str(tmp_path / "converted"), compute_type="float32", intra_threads=1
    )
    names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    for prompt in (names, [names[0], names[-1]]):  # as it asks multilingual models, and English-only ones
        mels = ctranslate2.StorageView.from_array(np.ascontiguousarray(features.numpy()))
        found = converted.generate(mels, [prompt] * len(CLIPS), beam_size=1)
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(f.sequences_ids[0]) for f in found], True, 0)
        ids[ids == 0] = processor.tokenizer.eos_token_id
        assert _rate(processor, ids) <= 0.06
    assert os.path.exists(tmp_path / "converted" / "preprocessor_config.json")
