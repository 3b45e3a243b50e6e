"""A Whisper model and its processor as one thing that turns windows of samples into segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.modeling_outputs import BaseModelOutput

from torch_xdna.errors import XdnaError
from torch_xdna.speech.languages import Heard, detect
from torch_xdna.speech.loading import load_whole
from torch_xdna.speech.stopwatch import Stopwatch
from torch_xdna.speech.subtitles import Segment
from torch_xdna.speech.vocabulary import PREVIOUS, TASKS, Vocabulary
from torch_xdna.speech.windows import Window, speech_bounds


@dataclass
class Transcriber:
    """`language`: the code of what is spoken, None to detect it; `task`: transcribe, or translate (to English);
    `prompt`: text taken as said before every window (names, spelling); `temperature`: above 0 words are drawn by
    chance.
    """

    model: WhisperForConditionalGeneration
    processor: WhisperProcessor
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    language: str | None = None
    task: str = "transcribe"
    prompt: str = ""
    temperature: float = 0.0
    vocabulary: Vocabulary = field(init=False)

    def __post_init__(self) -> None:
        config = self.model.config
        self.vocabulary = Vocabulary.of(self.processor.tokenizer, config.vocab_size)
        self.model.generation_config = self.vocabulary.generation_config(
            self.model.generation_config, config.max_target_positions
        )

    @property
    def rate(self) -> int:
        """Samples per second that the model wants."""
        return self.processor.feature_extractor.sampling_rate

    @property
    def window_seconds(self) -> float:
        """Length of the model's context: 30 for OpenAI's models, 10 for the shipped one."""
        return float(self.processor.feature_extractor.chunk_length)

    @property
    def takes_prompts(self) -> bool:
        """Whether the tokenizer has the token that a prompt begins with."""
        return PREVIOUS in self.processor.tokenizer.get_vocab()

    def choose(self, language: str | None, task: str) -> None:
        """What to write down: `language` by code or name. Raises XdnaError for what the model can't do."""
        if task not in TASKS:
            raise XdnaError(f"there is no task '{task}': use {' or '.join(TASKS)}")
        if task == "translate" and not self.vocabulary.is_multilingual:
            raise XdnaError(
                "translating needs a multilingual model and this one knows English only: leave --task out, or take a "
                "model such as openai/whisper-base"
            )
        self.language = None if language is None else self.vocabulary.language(language)
        self.task = task

    @torch.inference_mode()
    def transcribe(
        self, windows: Sequence[Window], heard: Sequence[Heard] | None = None
    ) -> list[list[Segment] | XdnaError]:
        """The segments of every window, at most `window_seconds` each, or why there are none; one pass of the
        encoder for all of them. `heard`: for every window what is known of its file's language, which is
        brought up to date.
        """
        heard = [Heard() for _ in windows] if heard is None else heard
        found: list[list[Segment] | XdnaError] = [[] for _ in windows]
        spoken = [i for i, window in enumerate(windows) if not window.is_silent]
        if spoken:
            features = self._features([windows[i] for i in spoken])
            sound = features.isfinite().flatten(1).all(1).tolist()
            for i in (i for i, good in zip(spoken, sound) if not good):
                found[i] = _not_finite(windows[i])
            features, spoken = features[sound], [i for i, good in zip(spoken, sound) if good]
        if not spoken:
            return found
        with self.stopwatch.stage("encoder"):
            hidden = self.model.model.encoder(features).last_hidden_state
        if not hidden.isfinite().all():
            raise XdnaError(
                "the encoder's result holds NaN or infinite values though its input holds none: the model's weights "
                "are out of any range that Whisper has; get the checkpoint again or take another"
            )
        with self.stopwatch.stage("decoder"):
            languages = self._languages(hidden, [windows[i] for i in spoken], [heard[i] for i in spoken])
            sequences = self._generate(hidden, languages)
        for i, ids in zip(spoken, sequences):
            found[i] = self._segments(windows[i], ids.tolist())
        return found

    def _features(self, windows: Sequence[Window]) -> torch.Tensor:
        with self.stopwatch.stage("features"), np.errstate(over="ignore", invalid="ignore"):
            return self.processor.feature_extractor(
                [window.samples for window in windows], sampling_rate=self.rate, return_tensors="pt"
            ).input_features.to(self.model.dtype)

    def _languages(
        self, hidden: torch.Tensor, windows: Sequence[Window], heard: Sequence[Heard]
    ) -> list[str] | None:
        """One code per window; None for an English-only model."""
        if not self.vocabulary.is_multilingual:
            return None
        if self.language is not None:
            return [self.language] * len(windows)
        chances = detect(self.model, self.vocabulary, hidden)
        return [h.hear(p, window.seconds) for h, p, window in zip(heard, chances, windows)]

    def _generate(self, hidden: torch.Tensor, languages: list[str] | None) -> torch.Tensor:
        """Token ids with timestamps where the model has them; one window each, so no sequential long-form
        loop.
        """
        asked: dict[str, Any] = {}
        if languages is not None:
            asked = {"language": [f"<|{code}|>" for code in languages], "task": self.task}
        if self.prompt:
            asked["prompt_ids"] = self.processor.get_prompt_ids(self.prompt, return_tensors="pt")
        if self.temperature:
            asked |= {"do_sample": True, "temperature": self.temperature}
        try:
            return self.model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
                return_timestamps=self.vocabulary.zero is not None,
                force_unique_generate_call=True,
                **asked,
            )
        except (ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise XdnaError(
                f"the decoder can't run as the model's generation_config.json asks: {reason}; take the file of the "
                "model that this one was made from, or remove it"
            ) from error

    def _segments(self, window: Window, ids: list[int]) -> list[Segment]:
        """Splits at the timestamps; a missing or backward one is replaced by where the window is loud."""
        first, last = speech_bounds(window.samples, window.rate)
        zero, special = self.vocabulary.zero, self.vocabulary.special
        tick = self.window_seconds / self.model.config.max_source_positions
        pieces: list[tuple[float, float, list[int]]] = []
        begin: float | None = None
        words: list[int] = []
        if self.vocabulary.start in ids:  # a prompt stands before it
            ids = ids[ids.index(self.vocabulary.start) :]
        for token in ids:
            if token in special:  # the prompt is among the ids, and is not said
                continue
            if zero is None or token < zero:
                words.append(token)
                continue
            seconds = (token - zero) * tick
            if words:
                pieces.append((first if begin is None else begin, seconds, words))
                begin, words = None, []
            else:
                begin = seconds
        pieces.append((first if begin is None else begin, last, words))
        segments, at = [], 0.0
        for start, end, piece in pieces:
            text = self.processor.tokenizer.decode(piece, skip_special_tokens=True).strip()
            if text:
                start = min(max(start, at), window.seconds)
                at = min(max(end, start), window.seconds)
                if at <= start:
                    at = window.seconds
                segments.append(Segment(round(window.start + start, 3), round(window.start + at, 3), text))
        return segments


def _not_finite(window: Window) -> XdnaError:
    loudest = float(np.abs(window.samples).max())
    return XdnaError(
        f"the features of {window.start:.2f} s to {window.start + window.seconds:.2f} s are NaN or infinite, because "
        f"its samples reach {loudest:.2g} where full scale is 1: make it quieter"
    )


def load(name: str | Path) -> Transcriber:
    """A Whisper checkpoint by folder or by Hugging Face id, in fp32. Raises XdnaError in one sentence."""
    return Transcriber(*load_whole(name))
