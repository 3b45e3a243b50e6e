"""Hugging Face's speech pipeline with the encoder compiled: the three lines of the README, on the shipped model.

python tests/examples/hf_pipeline.py [RECORDING]
"""

from __future__ import annotations

import sys
from typing import Any

from transformers import pipeline

import torch_xdna
from torch_xdna import speech
from torch_xdna.speech.audio import read


def main(recording: str) -> None:
    asr = pipeline("automatic-speech-recognition", model=str(speech.CHECKPOINT))
    asr.model.model.encoder.compile(backend="xdna", options={"device": "emulator", "fallback": "error"})
    result: Any = asr(read(recording, 16_000))
    print(result["text"])
    for report in torch_xdna.reports():
        print(report.summary())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(speech.clips()[0].path))
