"""Whole transcriptions, measured on this CPU in pairs within one run: `torch-xdna transcribe` against what it was
before (Hugging Face's fp32 decoder, batches of 4, one stage after another), its decoder against faster-whisper's, and
how much of the shorter stage the queue hides where an encoder waits as an NPU would.

    python benchmarks/transcribe.py MODEL RECORDING... --minutes 10 --rounds 3 --json FILE

MODEL: a Whisper checkpoint in Hugging Face's format. The recordings are joined, again and again, up to so many minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile

from torch_xdna.speech.audio import read, read_blocks
from torch_xdna.speech.opening import load
from torch_xdna.speech.pipeline import Job, run
from torch_xdna.speech.transcriber import Transcriber
from torch_xdna.speech.windows import windows

RATE = 16_000
NPU_SECONDS = 0.06  # per window, what the stand-in sleeps: base's modelled encoder


def joined(paths: list[Path], minutes: float, folder: Path) -> Path:
    """The recordings with half a second between them, again and again."""
    pieces = [np.concatenate([read(path, RATE), np.zeros(RATE // 2, np.float32)]) for path in paths]
    whole = np.concatenate(pieces)
    samples = np.tile(whole, -(-round(minutes * 60 * RATE) // len(whole)))[: round(minutes * 60 * RATE)]
    soundfile.write(folder / "joined.wav", samples, RATE)
    return folder / "joined.wav"


def before(found: Transcriber, path: Path) -> str:
    """One stage after another, four windows at a time."""
    cut = list(windows(read_blocks(path, RATE), RATE, found.window_seconds))
    groups = [found.transcribe(cut[at : at + 4]) for at in range(0, len(cut), 4)]
    return " ".join(s.text for group in groups for of_window in group for s in of_window)  # type: ignore[union-attr]


def now(found: Transcriber, path: Path, *, vad: bool = False) -> str:
    job = Job(path)
    run([job], found, 8, lambda seconds: None, lambda job: None, vad=vad)
    return " ".join(s.text for s in job.segments)


def faster_whispers(model: Any, prompt: list[int], suppressed: list[int], hidden: list[np.ndarray]) -> float:
    """Seconds of CTranslate2 as faster-whisper's batched pipeline calls it, greedy, on the same hidden states."""
    import ctranslate2

    begin = time.perf_counter()
    for batch in hidden:
        model.generate(
            ctranslate2.StorageView.from_array(batch), [prompt] * len(batch), beam_size=1, patience=1,
            length_penalty=1, max_length=448, suppress_blank=True, suppress_tokens=suppressed, return_scores=True,
            return_no_speech_prob=True, sampling_temperature=0.0, repetition_penalty=1, no_repeat_ngram_size=0,
        )  # fmt: skip
    return time.perf_counter() - begin


class Waiting(Transcriber):
    """Its encoder sleeps as long as an NPU is modelled to take, and gives what was encoded before."""

    def _hidden(self, features: Any, frames: int) -> np.ndarray:
        time.sleep(NPU_SECONDS * len(features))
        return self.kept[: len(features)]

    kept: np.ndarray


def overlap(found: Transcriber, path: Path) -> dict[str, float]:
    """Each stage alone, then both: which share of the shorter one is hidden."""
    cut = list(windows(read_blocks(path, RATE), RATE, found.window_seconds))
    waiting = Waiting(found.model, found.processor, language=found.language, decoder=found.decoder)
    waiting.kept = np.repeat(found.encode(cut[:1]).hidden, 8, 0)
    groups = [cut[at : at + 8] for at in range(0, len(cut), 8)]
    begin = time.perf_counter()
    list(windows(read_blocks(path, RATE), RATE, found.window_seconds))  # reading is in the encoder's thread
    encoded = [waiting.encode(group) for group in groups]
    encoder = time.perf_counter() - begin
    begin = time.perf_counter()
    for one in encoded:
        waiting.decode(one)
    decoder = time.perf_counter() - begin
    begin = time.perf_counter()
    now(waiting, path)
    both = time.perf_counter() - begin
    hidden = (encoder + decoder - both) / min(encoder, decoder)
    return {"encoder_alone": encoder, "decoder_alone": decoder, "both": both, "hidden_share": hidden}


def measured(model: str, path: Path, rounds: int) -> dict[str, Any]:
    import ctranslate2

    from torch_xdna.speech.decoders.conversion import converted

    slow = load(model, device="emulator")
    folder = converted(model, slow.model, slow.processor.tokenizer)
    fast = load(model, decoder="ctranslate2", device="emulator")
    theirs = ctranslate2.models.Whisper(
        str(folder), device="cpu", compute_type="int8", intra_threads=fast.decoder.threads
    )
    for one in (slow, fast):
        one.choose("en", "transcribe")
    known, suppressed = fast.vocabulary, list(fast.model.generation_config.suppress_tokens)
    prompt = (
        [known.start, known.languages["en"], known.tasks["transcribe"]] if known.languages else [known.start]
    )
    cut = list(windows(read_blocks(path, RATE), RATE, fast.window_seconds))
    encoded = [fast.encode(cut[at : at + 8]) for at in range(0, len(cut), 8)]
    slow.encode(cut[:4])
    hidden = [one.hidden for one in encoded]
    found: dict[str, Any] = {"rounds": [], "windows": len(cut)}
    for _ in range(rounds):
        row: dict[str, Any] = {}
        texts = {}
        for name, way, how in (("before", slow, before), ("now", fast, now)):
            way.stopwatch.seconds.clear()
            begin = time.perf_counter()
            texts[name] = how(way, path)
            row[name] = time.perf_counter() - begin
            row[f"{name}_stages"] = dict(way.stopwatch.seconds)
        begin = time.perf_counter()
        for one in encoded:
            fast.decode(one)
        row["decoder"] = time.perf_counter() - begin
        row["decoder_of_faster_whisper"] = faster_whispers(theirs, prompt, suppressed, hidden)
        row["overlap"] = overlap(fast, path)
        found["rounds"].append(row)
        found["texts"] = texts
    ratios = {
        "whole": [row["before"] / row["now"] for row in found["rounds"]],
        "decoder": [row["decoder"] / row["decoder_of_faster_whisper"] for row in found["rounds"]],
        "hidden": [row["overlap"]["hidden_share"] for row in found["rounds"]],
    }
    found["medians"] = {name: median(values) for name, values in ratios.items()}
    found["ratios"] = ratios
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/transcribe.py", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(asked.model, joined(asked.recordings, asked.minutes, Path(folder)), asked.rounds)
    print(f"{found['windows']} windows, emulator and CPU of this machine, medians of {asked.rounds} pairs")
    print(f"whole transcription: {found['medians']['whole']:.2f} x as fast as before")
    print(f"decoder: {found['medians']['decoder']:.2f} x faster-whisper's time on the same hidden states")
    print(f"shorter stage hidden beside an encoder that sleeps {1000 * NPU_SECONDS:.0f} ms per window: "
          f"{100 * found['medians']['hidden']:.0f} %")  # fmt: skip
    if asked.json:
        asked.json.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
