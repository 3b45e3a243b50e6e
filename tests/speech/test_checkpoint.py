"""The shipped checkpoint and clips: what is in them, how big, and how well eager fp32 does."""

from __future__ import annotations

import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from torch_xdna import speech
from torch_xdna.speech.audio import read
from torch_xdna.speech.training.corpus import HELD_OUT_VOICES
from torch_xdna.speech.training.sentences import is_held_out, vocabulary

FOLDER = Path(speech.CHECKPOINT)


def test_package_data_is_small() -> None:
    files = [path for path in FOLDER.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert (FOLDER / "model.safetensors").stat().st_size <= 6e6
    assert sum(path.stat().st_size for path in files) <= 10e6


def test_weights_travel_as_fp16_and_load_as_fp32() -> None:
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert WhisperForConditionalGeneration.from_pretrained(FOLDER).dtype == torch.float32


def test_every_part_agrees_with_the_others() -> None:
    model = WhisperForConditionalGeneration.from_pretrained(FOLDER)
    processor = WhisperProcessor.from_pretrained(FOLDER)
    config, generation, ids = model.config, model.generation_config, processor.tokenizer.get_vocab()
    features = processor.feature_extractor
    assert config.d_model == 64 * config.encoder_attention_heads == 64 * config.decoder_attention_heads
    assert features.nb_max_frames == 2 * config.max_source_positions
    assert features.feature_size == config.num_mel_bins
    assert config.vocab_size == len(processor.tokenizer)
    for settings in (config, generation):
        assert settings.decoder_start_token_id == ids["<|startoftranscript|>"]
        assert settings.eos_token_id == settings.pad_token_id == ids["<|endoftext|>"]
    assert generation.no_timestamps_token_id + 1 == ids["<|0.00|>"]
    tick = features.chunk_length / config.max_source_positions
    assert ids[f"<|{features.chunk_length:.2f}|>"] - ids["<|0.00|>"] == round(features.chunk_length / tick)


def test_clips_are_what_the_manifest_says() -> None:
    clips = speech.clips()
    assert len(clips) == len({clip.text for clip in clips}) == 40
    words = set(vocabulary())
    for clip in clips:
        info = soundfile.info(clip.path)
        assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
        assert info.duration == pytest.approx(clip.seconds, abs=0.001)
        assert is_held_out(clip.text) and set(clip.text.split()) <= words
        assert clip.voice_held_out == (clip.voice in HELD_OUT_VOICES)
        assert 0.5 < np.abs(read(clip.path, 16_000)).max() <= 1.0
    assert sum(clip.voice_held_out for clip in clips) >= 15
    assert sum(clip.noise_db is not None for clip in clips) >= 15
    listed = {Path(clip.path).name for clip in clips}
    assert {path.name for path in Path(clips[0].path).parent.glob("*.flac")} == listed


def test_the_manifest_is_plain_json() -> None:
    records = json.loads((Path(speech.clips()[0].path).parent / "manifest.json").read_text())
    assert set(records[0]) == {"file", "text", "voice", "voice_held_out", "noise_db", "seconds"}


def test_word_error_rate_of_eager_fp32(eager_transcripts: list[str]) -> None:
    clips = speech.clips()
    said = [clip.text for clip in clips]
    rate = 100 * jiwer.wer(said, eager_transcripts)
    for held_out in (False, True):
        pairs = [
            (c.text, heard) for c, heard in zip(clips, eager_transcripts) if c.voice_held_out == held_out
        ]
        group = 100 * jiwer.wer(*map(list, zip(*pairs)))
        print(f"{'held-out' if held_out else 'training'} voices: WER {group:.2f} %")
    print(f"eager fp32 on {len(clips)} shipped clips: WER {rate:.2f} %")
    assert rate <= 3
