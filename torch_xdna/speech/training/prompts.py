"""What the decoder is told before it writes, and what it shall write: the token ids of one window and which of them
are learnt.

    <|startofprev|> earlier text <|startoftranscript|> <|en|> <|transcribe|> <|notimestamps|> words <|endoftext|>

Whoever uses the model gives the part before the words, so nothing is learnt there but what Whisper itself is asked
for: the language, the usual task, and <|nospeech|> where nobody speaks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch_xdna.speech.training.recipe import POSITION_SECONDS, WINDOW_SECONDS

TIMESTAMP_STEP = 5  # positions: segment times are labelled to a tenth of a second
SPOKEN = "en"  # the one language of the corpus

Segment = tuple[float, float, str]  # begin, end (seconds), text

# Shares of the windows by what stands between <|startoftranscript|> and the words.
USUAL = 0.75  # <|en|><|transcribe|>
TRANSLATE = 0.05  # <|en|><|translate|>: English into English is the same text
ASKED = 0.08  # another language or task than what is heard: the words are English all the same
BARE = 0.06  # nothing, as programs do that hold it for an English-only model; the rest: <|en|> alone
EARLIER = 0.2  # share of windows with <|startofprev|>, if not asked otherwise
LONGEST_EARLIER = 380  # tokens; programs give at most 223, the rest trains the last positions
WRITTEN_SILENCE = 0.5  # of the windows without speech: the whole prompt and no words, instead of <|nospeech|>


@dataclass
class Label:
    """`ids` of the whole sequence; `learnt[i]`: whether ids[i] is to be predicted from what stands before it."""

    ids: list[int]
    learnt: list[bool]

    def add(self, *ids: int, learnt: bool = True) -> None:
        self.ids.extend(ids)
        self.learnt.extend([learnt] * len(ids))


class Prompts(Protocol):
    def __call__(self, rng: random.Random, segments: Sequence[Segment], shift: float) -> Label:
        """`shift`: seconds of silence before the window's begin, which its times are counted from."""


def prompts(tokenizer: Any, texts: Sequence[str], earlier: float = EARLIER) -> Prompts:
    """Those of the tokenizer's stage (see recipe.STAGES); `texts`: what the corpus says; `earlier`: share of windows
    with earlier text, where there is a token for it."""
    words = _Words(tokenizer, texts)
    return Whisper(tokenizer, words, sorted(set(texts)), earlier) if knows_tasks(tokenizer) else Plain(words)


def knows_tasks(tokenizer: Any) -> bool:
    return "<|transcribe|>" in tokenizer.get_vocab()


class _Words:
    """Ids of words and times."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]):
        self.tokenizer = tokenizer
        names = ["<|startoftranscript|>", "<|notimestamps|>", "<|endoftext|>", "<|0.00|>"]
        self.start, self.silent, self.end, self.zero = tokenizer.convert_tokens_to_ids(names)
        self.known = {text: self._encoded(text) for text in set(texts)}

    def _encoded(self, text: str) -> list[int]:
        return self.tokenizer(f" {text}", add_special_tokens=False).input_ids

    def words(self, text: str) -> list[int]:
        return self.known.get(text) or self._encoded(text)

    def time(self, seconds: float) -> int:
        tick = round(min(seconds, WINDOW_SECONDS) / POSITION_SECONDS / TIMESTAMP_STEP) * TIMESTAMP_STEP
        return self.zero + tick

    def said(self, segments: Sequence[Segment], shift: float, timestamps: bool) -> list[int]:
        ids: list[int] = []
        for begin, end, text in segments:
            words = self.words(text)
            ids += [self.time(begin + shift), *words, self.time(end + shift)] if timestamps else words
        return ids


@dataclass
class Plain:
    """An English-only Whisper's: start, perhaps <|notimestamps|>, words. All of it is learnt."""

    words: _Words

    def __call__(self, rng: random.Random, segments: Sequence[Segment], shift: float) -> Label:
        timestamps = rng.random() < 0.5
        label = Label([], [])
        label.add(self.words.start, *([] if timestamps else [self.words.silent]))
        label.add(*self.words.said(segments, shift, timestamps), self.words.end)
        return label


class Whisper:
    """A multilingual Whisper's, in all the ways that programs ask it."""

    def __init__(self, tokenizer: Any, words: _Words, texts: Sequence[str], earlier: float):
        self.words, self.texts, self.earlier = words, texts, earlier
        ids = tokenizer.get_vocab()
        self.spoken = ids[f"<|{SPOKEN}|>"]
        self.transcribe, self.translate = ids["<|transcribe|>"], ids["<|translate|>"]
        self.previous, self.no_speech = ids["<|startofprev|>"], ids["<|nospeech|>"]
        self.languages = range(self.words.start + 1, min(self.transcribe, self.translate))

    def __call__(self, rng: random.Random, segments: Sequence[Segment], shift: float) -> Label:
        words, label = self.words, Label([], [])
        timestamps = rng.random() < 0.5
        if rng.random() < self.earlier:
            label.add(self.previous, *self._earlier(rng), learnt=False)
        label.add(words.start, learnt=False)
        if not segments:
            self._silence(rng, label, timestamps)
            return label
        self._ask(rng, label)
        if not timestamps:
            label.add(words.silent, learnt=False)
        label.add(*words.said(segments, shift, timestamps), words.end)
        return label

    def _ask(self, rng: random.Random, label: Label) -> None:
        drawn = rng.random()
        if drawn < USUAL:
            label.add(self.spoken, self.transcribe)
        elif drawn < USUAL + TRANSLATE:
            label.add(self.spoken)
            label.add(self.translate, learnt=False)
        elif drawn < USUAL + TRANSLATE + ASKED:
            asked = [rng.choice(self.languages), rng.choice([self.transcribe, self.translate])]
            label.add(*asked, learnt=False)
        elif drawn >= USUAL + TRANSLATE + ASKED + BARE:
            label.add(self.spoken)

    def _silence(self, rng: random.Random, label: Label, timestamps: bool) -> None:
        if rng.random() < WRITTEN_SILENCE:
            label.add(self.spoken, self.transcribe, learnt=False)
            label.add(self.words.zero if timestamps else self.words.silent, learnt=False)
        else:
            label.add(self.no_speech)
        label.add(self.words.end)

    def _earlier(self, rng: random.Random) -> list[int]:
        """The end of an earlier transcript, with times or without; it says nothing about this window."""
        longest = rng.choices([40, 223, LONGEST_EARLIER], [0.6, 0.3, 0.1])[0]
        length, timestamps, at = rng.randint(1, longest), rng.random() < 0.5, 0.0
        ids: list[int] = []
        while len(ids) < length:
            text = rng.choice(self.texts)
            begin = at if at < WINDOW_SECONDS - 2 else 0.0
            at = min(begin + rng.uniform(1, 4), WINDOW_SECONDS)
            ids += self.words.said([(begin, at, text)], 0.0, timestamps)
        return ids[-length:]
