"""CTranslate2's decoder: batched, and in int8 where the CPU has instructions for it."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torch_xdna.errors import XdnaError
from torch_xdna.speech.decoders import Asked, Said
from torch_xdna.speech.vocabulary import Vocabulary

MEDIAN = 7  # frames over which attention is smoothed before words are placed (openai/whisper, timing.py)
DEFAULTS = [-1]  # CTranslate2's: the ids that the folder's config.json names


def missing() -> str | None:
    """Why it can't be used here, or None if it can."""
    if importlib.util.find_spec("ctranslate2") is None:
        return "ctranslate2 is not installed: pip install '.[fast]' in the checkout"
    return None


def compute_type() -> str:
    """int8 where the CPU gains from it, else float32."""
    import ctranslate2

    return "int8" if "int8" in ctranslate2.get_supported_compute_types("cpu") else "float32"


class Ct2Decoder:
    """The decoder of a folder in CTranslate2's format; its encoder is loaded with it and not used.

    `length`: tokens of prompt and text; `suppressed`: ids that are never written.
    """

    name = "ctranslate2"

    def __init__(
        self,
        folder: str | Path,
        vocabulary: Vocabulary,
        length: int,
        suppressed: Sequence[int] = DEFAULTS,
        threads: int = 0,
    ) -> None:
        if reason := missing():
            raise XdnaError(f"CTranslate2's decoder can't be used, because {reason}")
        import ctranslate2

        try:
            self._model = ctranslate2.models.Whisper(
                str(folder), device="cpu", compute_type=compute_type(), intra_threads=threads or _cores()
            )
        except (RuntimeError, ValueError) as error:
            raise XdnaError(f"CTranslate2 can't load {folder}: {error}; convert the model again") from error
        self.vocabulary, self._length, self._suppressed = vocabulary, length, list(suppressed)
        self.compute_type, self.threads = self._model.compute_type, threads or _cores()

    def languages(self, hidden: Any) -> list[dict[str, float]]:
        if (
            not self._model.is_multilingual
        ):  # CTranslate2 goes by the size of OpenAI's vocabularies, not by the tokens
            return self._languages_of_first_token(_view(hidden))
        found = self._model.detect_language(_view(hidden))
        return [{token[2:-2]: chance for token, chance in window} for window in found]

    def _languages_of_first_token(self, view: Any) -> list[dict[str, float]]:
        """From the scores of the token behind the start, over the languages alone, as `detect_language` does."""
        known = self.vocabulary
        results = self._model.generate(
            view, [[known.start]] * view.shape[0], max_length=2, beam_size=1, return_logits_vocab=True
        )
        found = []
        for result in results:
            scores = np.asarray(result.logits[0][0], np.float32)[list(known.languages.values())]
            chances = np.exp(scores - scores.max())
            found.append(dict(zip(known.languages, (chances / chances.sum()).tolist())))
        return found

    def generate(self, hidden: Any, asked: Asked) -> list[Said]:
        view = _view(hidden)
        starts = [self._start(asked, i) for i in range(view.shape[0])]
        if len(asked.previous) + len(starts[0]) >= self._length:
            raise XdnaError(
                f"the prompt has {len(asked.previous)} tokens and the decoder {self._length}; shorten it"
            )
        wishes: dict[str, Any] = {"beam_size": asked.beams}
        if asked.temperature:
            wishes = {"beam_size": 1, "sampling_topk": 0, "sampling_temperature": asked.temperature}
        results = self._model.generate(
            view,
            [[*asked.previous, *start] for start in starts],
            max_length=self._length,
            suppress_tokens=self._suppressed,
            max_initial_timestamp_index=view.shape[1],
            **wishes,
        )
        ids = [result.sequences_ids[0] for result in results]
        if not asked.word_times:
            return [Said(of_window) for of_window in ids]
        return [Said(i, t) for i, t in zip(ids, self._times(view, starts, ids, asked.frames))]

    def _start(self, asked: Asked, window: int) -> list[int]:
        known = self.vocabulary
        start = [known.start]
        if asked.languages is not None:
            start += [known.languages[asked.languages[window]], known.tasks[asked.task]]
        if known.zero is None and known.no_timestamps is not None:
            start.append(known.no_timestamps)
        return start

    def _times(
        self, view: Any, starts: list[list[int]], ids: list[list[int]], frames: Sequence[int]
    ) -> list[list[tuple[float, float]]]:
        """By the decoder's attention to the sound, one window after another, because starts differ."""
        import ctranslate2

        hidden = np.asarray(view)
        found: list[list[tuple[float, float]]] = []
        for i, start in enumerate(starts):
            text = [t for t in ids[i] if self._is_text(t)]
            if not text:
                found.append([])
                continue
            one = ctranslate2.StorageView.from_array(np.ascontiguousarray(hidden[i : i + 1]))
            (aligned,) = self._model.align(one, start, [text], [2 * frames[i]], median_filter_width=MEDIAN)
            found.append(_token_times(aligned.alignments, len(text)))
        return found

    def _is_text(self, token: int) -> bool:
        zero = self.vocabulary.zero
        return token not in self.vocabulary.special and (zero is None or token < zero)


def _token_times(alignments: Sequence[tuple[int, int]], count: int) -> list[tuple[float, float]]:
    """First and last frame of every token from a path of (token, frame) steps; the end token closes the last."""
    tokens, frames = np.array(alignments).T
    first = frames[np.pad(np.diff(tokens), (1, 0), constant_values=1).astype(bool)].astype(float).tolist()
    first += [float(frames[-1])] * (count + 1 - len(first))
    return list(itertools.pairwise(first[: count + 1]))


def _view(hidden: Any) -> Any:
    import ctranslate2

    return ctranslate2.StorageView.from_array(np.ascontiguousarray(hidden, np.float32))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
