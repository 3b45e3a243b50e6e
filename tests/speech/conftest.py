"""What several of these tests need: the pipeline on the shipped checkpoint, eager and compiled."""

from __future__ import annotations

import pytest
import torch
from transformers import Pipeline, pipeline

from torch_xdna import speech
from torch_xdna.speech.audio import read


def recognizer(device: str | None) -> Pipeline:
    """Hugging Face's pipeline on the shipped checkpoint, the encoder compiled if a device is named."""
    found = pipeline("automatic-speech-recognition", model=speech.CHECKPOINT)
    if device:
        found.model.model.encoder.compile(backend="xdna", options={"device": device})
    return found


def transcripts(found: Pipeline, batch_size: int) -> list[str]:
    """Samples, not file names: those the pipeline gives to ffmpeg, which not every machine has."""
    samples = [read(clip.path, 16_000) for clip in speech.clips()]
    return [result["text"].strip() for result in found(samples, batch_size=batch_size)]


@pytest.fixture(scope="session")
def eager() -> Pipeline:
    return recognizer(None)


@pytest.fixture(scope="session")
def compiled() -> Pipeline:
    torch._dynamo.reset()
    return recognizer("emulator")


@pytest.fixture(scope="session")
def eager_transcripts(eager: Pipeline) -> list[str]:
    return transcripts(eager, batch_size=8)


@pytest.fixture(scope="session")
def compiled_transcripts(compiled: Pipeline) -> list[str]:
    return transcripts(compiled, batch_size=8)


@pytest.fixture
def array() -> Pipeline:
    return recognizer("array")
