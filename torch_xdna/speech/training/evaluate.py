"""Word error rate of a checkpoint on freshly synthesised held-out speech, by Hugging Face's own generate.

    python -m torch_xdna.speech.training.evaluate FOLDER [--clips 200]

No sentence of these was in the training corpus. Four groups: training voices or held-out voices, with and
without noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jiwer
import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from torch_xdna.speech.training.corpus import HELD_OUT_VOICES, Corpus, synthesise
from torch_xdna.speech.training.espeak import RATE

SEED = 4711


def transcripts(folder: str | Path, clips: list[np.ndarray], batch: int = 16) -> list[str]:
    """Greedy, fp32, eager."""
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = WhisperProcessor.from_pretrained(folder)
    texts: list[str] = []
    for begin in range(0, len(clips), batch):
        features = processor.feature_extractor(
            clips[begin : begin + batch], sampling_rate=RATE, return_tensors="pt"
        ).input_features
        with torch.inference_mode():
            ids = model.generate(features)
        texts += [text.strip() for text in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return texts


def with_noise(samples: np.ndarray, signal_to_noise: float, rng: np.random.Generator) -> np.ndarray:
    """White noise `signal_to_noise` dB below the clip's mean power; float32."""
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-signal_to_noise / 20)
    return (samples + level * rng.standard_normal(len(samples))).astype(np.float32)


def groups(clips: int) -> dict[str, tuple[list[np.ndarray], Corpus]]:
    """Name -> samples and the corpus they came from."""
    rng = np.random.default_rng(SEED)
    known = synthesise(clips, SEED, held_out=True)
    unknown = synthesise(clips, SEED + 1, held_out=True, voices=HELD_OUT_VOICES)
    result = {}
    for voices, corpus in (("training voices", known), ("held-out voices", unknown)):
        clean = [corpus.clip(i) for i in range(len(corpus))]
        result[f"{voices}, clean"] = (clean, corpus)
        result[f"{voices}, noise at 15 dB"] = ([with_noise(clip, 15, rng) for clip in clean], corpus)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Word error rates on held-out speech.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=200, help="per group")
    parser.add_argument("--show", type=int, default=0, help="print so many wrong transcripts per group")
    arguments = parser.parse_args()
    for name, (clips, corpus) in groups(arguments.clips).items():
        heard = transcripts(arguments.folder, clips)
        print(f"{name}: WER {100 * jiwer.wer(corpus.texts, heard):.2f} % ({len(clips)} clips)", flush=True)
        wrong = [(said, got) for said, got in zip(corpus.texts, heard) if said != got]
        for said, got in wrong[: arguments.show]:
            print(f"    said  {said}\n    heard {got}")


if __name__ == "__main__":
    main()
