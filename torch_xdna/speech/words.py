"""When each word was said: tokens with times, gathered to words with their punctuation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from transformers.models.whisper.tokenization_whisper import LANGUAGES, _combine_tokens_into_words

from torch_xdna.speech.subtitles import Word
from torch_xdna.speech.windows import FRAME_SECONDS, Window, loudness

QUIET_BELOW_PEAK = 25.0  # dB under the window's loudest frame
PAUSE_SECONDS = 0.2  # a quiet stretch of at least this is in no word


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


def without_pauses(times: Sequence[tuple[float, float]], window: Window) -> list[tuple[float, float]]:
    """The same, seconds in the window, where a pause at either end or in the middle of a token is not of it.

    Attention places a token from the end of the one before to its own end, the pause between them included; of a token
    with a pause in its middle the later part is kept.
    """
    levels = loudness(window.samples, window.rate)
    quiet = levels < levels.max() - QUIET_BELOW_PEAK
    pauses, at = [], 0
    for is_quiet, run in groupby(quiet.tolist()):
        count = len(list(run))
        if is_quiet and count * FRAME_SECONDS >= PAUSE_SECONDS:
            pauses.append((at * FRAME_SECONDS, (at + count) * FRAME_SECONDS))
        at += count
    return [_moved(start, end, pauses) for start, end in times]


def _moved(start: float, end: float, pauses: Sequence[tuple[float, float]]) -> tuple[float, float]:
    inside = [(a, b) for a, b in pauses if a < end and b > start]
    if inside and inside[-1][1] >= end:
        if inside[-1][0] <= start:
            return start, end  # all of it is quiet
        end = inside.pop()[0]
    return (inside[-1][1] if inside else start), end
