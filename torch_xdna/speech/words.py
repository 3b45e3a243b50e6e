"""When each word was said: tokens with times, gathered to words with their punctuation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.models.whisper.tokenization_whisper import LANGUAGES, _combine_tokens_into_words

from torch_xdna.speech.subtitles import Word


def words(
    tokenizer: Any,
    tokens: Sequence[int],
    times: Sequence[tuple[float, float]],
    language: str | None,
    bounds: tuple[float, float],
) -> tuple[Word, ...]:
    """`times`: seconds in the file at which every token begins and ends; `bounds`: of the segment, which no word
    leaves. Hugging Face's own grouping: by spaces, or by characters in languages that write none."""
    name = LANGUAGES.get(language or "en", "english")
    texts, _, indices = _combine_tokens_into_words(tokenizer, list(tokens), language=name)
    found, at = [], bounds[0]
    for text, of_word in zip(texts, indices):
        if not text.strip():
            continue
        start = min(max(times[of_word[0]][0], at), bounds[1])
        at = min(max(times[of_word[-1]][1], start), bounds[1])
        found.append(Word(round(start, 3), round(at, 3), text.strip()))
    return tuple(found)
