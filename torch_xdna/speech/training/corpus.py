"""Synthesises the training corpus once and keeps it as one .npz file.

    python -m torch_xdna.speech.training.corpus WORK [--clips 24000] [--seed 1]

Voices are espeak-ng accents crossed with speaker variants. Two variants never appear in training: they are
the held-out voices. Each clip draws its own speed, pitch and pitch range.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torch_xdna.speech.training.espeak import RATE, Espeak
from torch_xdna.speech.training.sentences import is_held_out, sentence

# file names of espeak-ng's voices; "en" is Great Britain
ACCENTS = [
    "en-us",
    "en",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
]
ACCENT_WEIGHTS = [4, 4, 2, 1, 1, 1, 1, 1]
_VARIANTS = """
m1 m2 m3 m4 m6 m8 f1 f2 f3 f5 klatt klatt2 klatt3 klatt4 adam anika antonio benjamin boris caleb david ed
edward gene hugo john lee linda max michael mike paul quincy rob robert shelby steph travis victor zac andy
annie belinda
"""
VARIANTS = _VARIANTS.split()
HELD_OUT_VOICES = ["en-us+m7", "en+f4"]  # neither variant appears in VARIANTS


@dataclass(frozen=True)
class Corpus:
    """int16 samples at 16 kHz: clip i is samples[offsets[i]:offsets[i + 1]]; word starts likewise, in s."""

    samples: np.ndarray
    offsets: np.ndarray
    texts: list[str]
    starts: np.ndarray
    start_offsets: np.ndarray
    voices: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def clip(self, index: int) -> np.ndarray:
        """float32 in [-1, 1]."""
        return self.samples[self.offsets[index] : self.offsets[index + 1]].astype(np.float32) / 32768

    def word_starts(self, index: int) -> np.ndarray:
        return self.starts[self.start_offsets[index] : self.start_offsets[index + 1]]

    def seconds(self) -> np.ndarray:
        """Length of every clip."""
        return np.diff(self.offsets) / RATE


def load(path: Path) -> Corpus:
    with np.load(path) as data:
        return Corpus(
            data["samples"],
            data["offsets"],
            [str(text) for text in data["texts"]],
            data["starts"],
            data["start_offsets"],
            [str(voice) for voice in data["voices"]],
        )


def synthesise(clips: int, seed: int, *, held_out: bool, voices: list[str] | None = None) -> Corpus:
    """`clips` clips of the training or the held-out sentences; `voices` replaces the random training
    voices.
    """
    rng = random.Random(seed)
    espeak = Espeak()
    samples: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    texts: list[str] = []
    used: list[str] = []
    while len(texts) < clips:
        text = sentence(rng)
        if is_held_out(text) != held_out:
            continue
        voice = rng.choice(voices) if voices else training_voice(rng)
        speech = espeak.speak(text, voice=voice, **prosody(rng))
        if len(speech.samples) > 9 * RATE:
            continue
        samples.append(speech.samples)
        starts.append(np.array(speech.starts, np.float32))
        texts.append(text)
        used.append(voice)
    return Corpus(
        np.concatenate(samples), _offsets(samples), texts, np.concatenate(starts), _offsets(starts), used
    )


def training_voice(rng: random.Random) -> str:
    return f"{rng.choices(ACCENTS, ACCENT_WEIGHTS)[0]}+{rng.choice(VARIANTS)}"


def prosody(rng: random.Random) -> dict[str, int]:
    return {
        "words_per_minute": rng.randint(120, 205),
        "pitch": rng.randint(25, 75),
        "pitch_range": rng.randint(25, 75),
    }


def _offsets(pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])


def main() -> None:
    parser = argparse.ArgumentParser(description="Synthesise the training corpus with espeak-ng.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--clips", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    corpus = synthesise(arguments.clips, arguments.seed, held_out=False)
    np.savez(
        arguments.work / "corpus.npz",
        samples=corpus.samples,
        offsets=corpus.offsets,
        texts=np.array(corpus.texts),
        starts=corpus.starts,
        start_offsets=corpus.start_offsets,
        voices=np.array(corpus.voices),
    )
    hours = len(corpus.samples) / RATE / 3600
    print(f"{len(corpus)} clips, {hours:.1f} hours, {len(set(corpus.texts))} sentences")


if __name__ == "__main__":
    main()
