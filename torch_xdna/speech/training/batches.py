"""Training batches: windows of speech with noise, as log-mels, decoder labels and character labels.

A batch is a pure function of (seed, step, rank of the process), so a run that was stopped goes on exactly
where it was. Three kinds:
- short: single utterances of similar length in a context just long enough for them; the context is a random
  slice of the positions, which stands for silence before it. Most of the speech is learnt here, at a quarter
  of the cost.
- packed: whole windows that hold several utterances, some cut at a word, as long-form audio gives them.
- single: whole windows with one utterance at a random place.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from transformers import WhisperProcessor

from torch_xdna.speech.training.corpus import Corpus
from torch_xdna.speech.training.espeak import RATE
from torch_xdna.speech.training.prompts import EARLIER, knows_tasks, prompts
from torch_xdna.speech.training.recipe import CONTEXT, POSITION_SECONDS, WINDOW_SECONDS

CHARACTERS = "abcdefghijklmnopqrstuvwxyz "  # CTC labels 1..27, 0 is the blank
SIZES = {"short": 8, "packed": 3, "single": 3}  # clips per process and step
SHARES = [0.62, 0.28, 0.10]  # of the steps, in the order of SIZES
SHORT_ONLY_STEPS = 1000  # at the beginning of the first stage, until the encoder hears characters
SILENCES = 0.05  # share of windows in which nobody speaks, where there is a token for it
HOP, FRAME = 160, 400  # samples, as in Whisper's feature extractor


@dataclass(frozen=True)
class Batch:
    """mels (B, 80, 2T); first: position of the context's first frame; tokens (B, N) padded with <|endoftext|>;
    learnt (B, N): which of them are to be predicted; characters (B, C) and their lengths (B,); frames (B, T): the
    spoken word at each position, 0 for none."""

    mels: torch.Tensor
    first: int
    tokens: torch.Tensor
    learnt: torch.Tensor
    characters: torch.Tensor
    character_lengths: torch.Tensor
    frames: torch.Tensor


@dataclass
class Window:
    samples: np.ndarray
    segments: list[tuple[float, float, str]]  # begin, end (seconds), text
    words: list[tuple[float, float, str]]  # likewise; two words that are spoken as one are one


class Batches:
    def __init__(self, corpus: Corpus, processor: WhisperProcessor, seed: int, earlier: float = EARLIER):
        self.corpus = corpus
        self.tokenizer = processor.tokenizer
        self.seed = seed
        self.filters = torch.from_numpy(processor.feature_extractor.mel_filters).float()
        self.order = np.argsort(corpus.seconds(), kind="stable")
        self.noise = _noise_bank(seed)
        spoken = {
            text
            for i in range(len(corpus))
            for *_, text in _spoken_words(corpus.texts[i].split(), corpus.word_starts(i), 0.0, 0.0)
        }
        self.classes = {text: 1 + i for i, text in enumerate(sorted(spoken))}  # of frames; 0 is silence
        self.prompts = prompts(self.tokenizer, corpus.texts, earlier)
        is_first = not knows_tasks(self.tokenizer)
        self.silences, self.short_only = (0.0, SHORT_ONLY_STEPS) if is_first else (SILENCES, 0)

    def __call__(self, step: int, rank: int = 0, kind: str | None = None) -> Batch:
        """The batch of one process in one step; the kind, and with it the work, is the same for all."""
        drawn = random.Random(f"{self.seed} {step}").choices(list(SIZES), SHARES)[0]
        kind = kind or ("short" if step < self.short_only else drawn)
        rng = random.Random(f"{self.seed} {step} {rank}")
        if kind == "short":
            windows, positions = self._short(rng)
        else:
            make = self._packed if kind == "packed" else self._single
            windows, positions = [make(rng) for _ in range(SIZES[kind])], CONTEXT
        first = rng.randint(0, CONTEXT - positions)
        return self._batch(rng, windows, positions, first)

    def _short(self, rng: random.Random) -> tuple[list[Window], int]:
        size = SIZES["short"]
        anchor = rng.randrange(len(self.corpus))
        near = self.order[max(0, anchor - 400) : anchor + 400]
        windows = [self._window(rng, [int(rng.choice(near))], rng.uniform(0, 0.4)) for _ in range(size)]
        seconds = max(len(window.samples) for window in windows) / RATE
        return windows, min(CONTEXT, int(seconds / POSITION_SECONDS) + rng.randint(2, 15))

    def _single(self, rng: random.Random) -> Window:
        index = rng.randrange(len(self.corpus))
        room = WINDOW_SECONDS - len(self.corpus.clip(index)) / RATE
        return self._window(rng, [index], rng.choice([rng.uniform(0, 0.6), rng.uniform(0, room)]))

    def _packed(self, rng: random.Random) -> Window:
        indices = [rng.randrange(len(self.corpus)) for _ in range(rng.randint(2, 6))]
        return self._window(rng, indices, rng.uniform(0, 0.8), cut_first=rng.random() < 0.3)

    def _window(self, rng: random.Random, indices: list[int], lead: float, cut_first: bool = False) -> Window:
        """The utterances one after another with pauses; what does not fit into the window is cut off."""
        pieces: list[np.ndarray] = [np.zeros(int(lead * RATE), np.float32)]
        segments, at = [], lead
        spoken: list[tuple[float, float, str]] = []
        for number, index in enumerate(indices):
            samples, words = self.corpus.clip(index), self.corpus.texts[index].split()
            starts = self.corpus.word_starts(index)
            if number == 0 and cut_first and len(words) > 2 and np.isfinite(starts[1:]).any():
                word = rng.choice([i for i in range(1, len(words)) if np.isfinite(starts[i])])
                samples, words, starts = (
                    samples[int(starts[word] * RATE) :],
                    words[word:],
                    starts[word:] - starts[word],
                )
                pieces, at = [], 0.0
            elif number and at > WINDOW_SECONDS - 0.7:
                break
            room = WINDOW_SECONDS - at
            length = len(samples) / RATE
            if length > room:
                words = _words_before(words, starts, room)
                length = room
            pieces.append(samples * rng.uniform(0.5, 1.0))
            if words:
                segments.append((at, at + length, " ".join(words)))
                spoken += _spoken_words(words, starts, at, length)
            pause = rng.uniform(0.3, 1.2)
            pieces.append(np.zeros(int(pause * RATE), np.float32))
            at += length + pause
        del pieces[-1]
        pieces.append(np.zeros(int(rng.uniform(0, 0.4) * RATE), np.float32))
        samples = np.concatenate(pieces)[: WINDOW_SECONDS * RATE]
        samples = samples / (np.abs(samples).max() + 1e-6)
        return Window(self._noisy(rng, samples) * 10 ** rng.uniform(-1.5, 0), segments, spoken)

    def _silence(self, rng: random.Random, window: Window) -> Window:
        """Noise as long as the window, or nothing at all."""
        bank, length = self.noise[rng.randrange(len(self.noise))], len(window.samples)
        begin = rng.randrange(len(bank) - length)
        level = rng.choice([0.0, 10 ** rng.uniform(-4, -0.7)])
        return Window((level * bank[begin : begin + length]).astype(np.float32), [], [])

    def _noisy(self, rng: random.Random, samples: np.ndarray) -> np.ndarray:
        if rng.random() < 0.3:
            return samples
        bank = self.noise[rng.randrange(len(self.noise))]
        begin = rng.randrange(len(bank) - len(samples))
        level = np.sqrt(np.mean(samples**2)) * 10 ** (-rng.uniform(8, 40) / 20)
        return samples + level * bank[begin : begin + len(samples)]

    def _batch(self, rng: random.Random, windows: list[Window], positions: int, first: int) -> Batch:
        if self.silences:
            windows = [self._silence(rng, w) if rng.random() < self.silences else w for w in windows]
        audio = np.zeros((len(windows), positions * 2 * HOP), np.float32)
        for row, window in zip(audio, windows):
            row[: len(window.samples)] = window.samples[: len(row)]
        shift = first * POSITION_SECONDS
        labels = [self.prompts(rng, window.segments, shift) for window in windows]
        tokens = torch.full(
            (len(labels), max(len(label.ids) for label in labels)), self.tokenizer.eos_token_id
        )
        learnt = torch.zeros(tokens.shape, dtype=torch.bool)
        for at, label in enumerate(labels):
            tokens[at, : len(label.ids)] = torch.tensor(label.ids)
            learnt[at, : len(label.ids)] = torch.tensor(label.learnt)
        spelt = [
            [CHARACTERS.index(c) + 1 for c in " ".join(text for *_, text in w.segments)] for w in windows
        ]
        lengths = torch.tensor([len(row) for row in spelt])
        characters = torch.zeros((len(spelt), max(1, int(lengths.max()))), dtype=torch.long)
        for row, ids in zip(characters, spelt):
            row[: len(ids)] = torch.tensor(ids)
        frames = torch.zeros((len(windows), positions), dtype=torch.long)
        for row, window in zip(frames, windows):
            for begin, end, text in window.words:
                row[round(begin / POSITION_SECONDS) : round(end / POSITION_SECONDS)] = self.classes.get(
                    text, 0
                )
        mels = log_mels(torch.from_numpy(audio), self.filters, _equaliser(rng, len(windows)))
        return Batch(mels, first, tokens, learnt, characters, lengths, frames)


def log_mels(
    audio: torch.Tensor, filters: torch.Tensor, equaliser: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, S) samples to (B, 80, S / 160), the values of Whisper's feature extractor for the same samples.

    `equaliser` (B, 80) is added in the log domain: a microphone's colour.
    """
    spectrum = torch.stft(audio, FRAME, HOP, window=torch.hann_window(FRAME), return_complex=True)[..., :-1]
    power = filters.T @ spectrum.abs() ** 2
    logs = power.clamp(min=1e-10).log10()
    if equaliser is not None:
        logs = logs + equaliser[:, :, None]
    logs = torch.maximum(logs, logs.amax((1, 2), keepdim=True) - 8)
    return (logs + 4) / 4


def _equaliser(rng: random.Random, count: int) -> torch.Tensor:
    """(count, 80): a smooth random curve of up to about 6 dB per clip."""
    knots = torch.tensor([[rng.gauss(0, 0.25) for _ in range(5)] for _ in range(count)])
    return torch.nn.functional.interpolate(knots[:, None], size=80, mode="linear", align_corners=True)[:, 0]


def _noise_bank(seed: int, seconds: int = 40) -> list[np.ndarray]:
    """White, pink and brown noise and two in between, each of unit power."""
    rng = np.random.default_rng(seed)
    count = seconds * RATE
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20)
    bank = []
    for slope in (0.0, 0.25, 0.5, 0.75, 1.0):
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * frequency**-slope, count)
        bank.append((noise / noise.std()).astype(np.float32))
    return bank


def _words_before(words: list[str], starts: np.ndarray, limit: float) -> list[str]:
    """The words that end before `limit` seconds; a word ends where the next one with a known start begins."""
    known = [i for i in range(1, len(words)) if np.isfinite(starts[i]) and starts[i] <= limit]
    return words[: known[-1]] if known else []


def _spoken_words(
    words: list[str], starts: np.ndarray, at: float, length: float
) -> list[tuple[float, float, str]]:
    """Begin, end and text of what espeak-ng spoke as one word each; the utterance begins at `at`."""
    first = [i for i in range(len(words)) if i == 0 or np.isfinite(starts[i])]
    begins = [at + (float(starts[i]) if i and np.isfinite(starts[i]) else 0.0) for i in first]
    ends = [*begins[1:], at + length]
    return [
        (begin, end, " ".join(words[i:j]))
        for begin, end, i, j in zip(begins, ends, first, [*first[1:], len(words)])
    ]
