"""Makes the clips that ship with the package, without looking at what any model makes of them.

    python -m torch_xdna.speech.training.clips FOLDER

40 distinct held-out sentences: half in training voices, half in held-out voices, every second one with white
noise 15 dB below the speech.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import soundfile

from torch_xdna.speech.training.corpus import HELD_OUT_VOICES, prosody, training_voice
from torch_xdna.speech.training.espeak import RATE, Espeak
from torch_xdna.speech.training.evaluate import with_noise
from torch_xdna.speech.training.sentences import is_held_out, sentence

SEED = 2026
COUNT = 40
NOISE_DB = 15.0
SILENCE_SECONDS = 0.25  # at either end
FEWEST_WORDS = 3  # shorter ones say little about a transcript


def make(folder: Path) -> None:
    rng, noise = random.Random(SEED), np.random.default_rng(SEED)
    espeak = Espeak()
    folder.mkdir(parents=True, exist_ok=True)
    manifest = []
    for number, text in enumerate(_sentences(rng)):
        unheard = number % 4 >= 2
        voice = HELD_OUT_VOICES[number % 2] if unheard else training_voice(rng)
        speech = espeak.speak(text, voice=voice, **prosody(rng))
        samples = np.pad(speech.samples.astype(np.float32) / 32768, int(SILENCE_SECONDS * RATE))
        noisy = number % 8 >= 4
        if noisy:
            samples = with_noise(samples, NOISE_DB, noise)
        samples *= 0.9 / np.abs(samples).max()
        file = f"{number + 1:02d}.flac"
        soundfile.write(folder / file, samples, RATE, subtype="PCM_16")
        manifest.append(
            {
                "file": file,
                "text": text,
                "voice": voice,
                "voice_held_out": unheard,
                "noise_db": NOISE_DB if noisy else None,
                "seconds": round(len(samples) / RATE, 3),
            }
        )
    lines = ",\n".join(f"  {json.dumps(record)}" for record in manifest)
    (folder / "manifest.json").write_text(f"[\n{lines}\n]\n")


def _sentences(rng: random.Random) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < COUNT:
        text = sentence(rng)
        if is_held_out(text) and len(text.split()) >= FEWEST_WORDS:
            found[text] = None
    return list(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the clips that ship with the package.")
    parser.add_argument("folder", type=Path)
    make(parser.parse_args().folder)


if __name__ == "__main__":
    main()
