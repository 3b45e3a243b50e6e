"""A Whisper model and its processor as one thing that turns windows of samples into segments.

Two halves, so that the encoder of the next windows can run while the decoder writes the last: `encode` and `decode`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration

from torch_xdna.encoder import Encoder
from torch_xdna.errors import XdnaError
from torch_xdna.speech.decoders import Asked, Decoder, Said
from torch_xdna.speech.decoders.hf import HfDecoder
from torch_xdna.speech.languages import Heard
from torch_xdna.speech.stopwatch import Stopwatch
from torch_xdna.speech.subtitles import Segment, Word
from torch_xdna.speech.vocabulary import PREVIOUS, TASKS, Vocabulary
from torch_xdna.speech.windows import Window, speech_bounds
from torch_xdna.speech.words import without_pauses, words

MARGIN_SECONDS = 0.5  # of padding that a shortened context has after the sound at least
LOOP = 2.4
LENGTHS = 5  # contexts that are tried: fifths of the model's own, 6 s for OpenAI's


@dataclass
class Encoded:
    """Windows between encoder and decoder. `hidden`: (spoken windows, context, width), None if nobody speaks;
    `spoken`: which windows those are; `is_short`: whether the context was cut; `errors`: what is wrong with others, by
    their number."""

    windows: Sequence[Window]
    hidden: Any = None
    spoken: list[int] = field(default_factory=list)
    is_short: bool = False
    errors: dict[int, XdnaError] = field(default_factory=dict)


@dataclass
class Transcriber:
    """`language`: the code of what is spoken, None to detect it; `task`: transcribe, or translate (to English);
    `prompt`: text taken as said before every window (names, spelling); `hotwords`: likewise, words to expect;
    `temperature`: above 0 words are drawn by chance; `beam_size`: 1 is greedy; `word_times`: segments have words.

    `model`: None where the weights are CTranslate2's, which then need `encoder`, `decoder` and `rows`. `decoder`: None
    is Hugging Face's. `encoder`: numpy's door to a device; where there is a `model` it takes only windows that are
    shorter than the model's own (`short_context`). `rows`: of the decoder's embedding, where there is no model.
    """

    model: WhisperForConditionalGeneration | None
    processor: Any
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    language: str | None = None
    task: str = "transcribe"
    prompt: str = ""
    temperature: float = 0.0
    hotwords: str = ""
    beam_size: int = 1
    word_times: bool = False
    decoder: Decoder | None = None
    encoder: Encoder | None = None
    short_context: bool = False
    rows: int = 0
    vocabulary: Vocabulary = field(init=False)

    def __post_init__(self) -> None:
        if self.model is None:
            self.vocabulary = Vocabulary.of(self.processor.tokenizer, self.rows)
            return
        config = self.model.config
        self.vocabulary = Vocabulary.of(self.processor.tokenizer, config.vocab_size)
        self.model.generation_config = self.vocabulary.generation_config(
            self.model.generation_config, config.max_target_positions
        )
        if self.decoder is None:
            self.decoder = HfDecoder(self.model, self.vocabulary)

    @property
    def context(self) -> int:
        """Frames that the encoder gives out for a whole window."""
        if self.model is not None:
            return self.model.config.max_source_positions
        assert self.encoder is not None
        return self.encoder.context

    @property
    def length(self) -> int:
        """Tokens that the decoder holds."""
        return 448 if self.model is None else self.model.config.max_target_positions

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

    def check(self) -> None:
        """Find out before long work that a prompt or hotwords can be taken. Raises XdnaError."""
        self._previous()

    def transcribe(
        self, windows: Sequence[Window], heard: Sequence[Heard] | None = None
    ) -> list[list[Segment] | XdnaError]:
        """The segments of every window, at most `window_seconds` each, or why there are none; one pass of the
        encoder for all of them. `heard`: for every window what is known of its file's language, which is
        brought up to date.
        """
        return self.decode(self.encode(windows), heard)

    @torch.inference_mode()
    def encode(self, windows: Sequence[Window], *, whole: bool = False) -> Encoded:
        """The first half. May run in one thread while `decode` runs in another. `whole`: no shortened context. Raises
        XdnaError."""
        found = Encoded(windows)
        spoken = [i for i, window in enumerate(windows) if not window.is_silent]
        if not spoken:
            return found
        features = self._features([windows[i] for i in spoken])
        sound = features.isfinite().flatten(1).all(1).tolist()
        found.errors = {i: _not_finite(windows[i]) for i, good in zip(spoken, sound) if not good}
        found.spoken = [i for i, good in zip(spoken, sound) if good]
        if not found.spoken:
            return found
        with self.stopwatch.stage("encoder"):
            longest = max(windows[i].seconds for i in found.spoken)
            frames = self._shortened(longest) if self.short_context and not whole else self.context
            hidden, found.is_short = self._hidden(features[sound], frames), frames < self.context
        if not np.isfinite(hidden).all():
            raise XdnaError(
                "the encoder's result holds NaN or infinite values though its input holds none: the model's weights "
                "are out of any range that Whisper has; get the checkpoint again or take another"
            )
        found.hidden = hidden
        return found

    @torch.inference_mode()
    def decode(
        self, encoded: Encoded, heard: Sequence[Heard] | None = None
    ) -> list[list[Segment] | XdnaError]:
        """The second half."""
        windows = encoded.windows
        heard = [Heard() for _ in windows] if heard is None else heard
        found: list[list[Segment] | XdnaError] = [encoded.errors.get(i, []) for i in range(len(windows))]
        if encoded.hidden is None:
            return found
        assert self.decoder is not None
        spoken = [windows[i] for i in encoded.spoken]
        with self.stopwatch.stage("decoder"):
            languages = self._languages(encoded.hidden, spoken, [heard[i] for i in encoded.spoken])
            asked = Asked(
                languages, self.task, self._previous(), self.beam_size, self.temperature, self.word_times,
                tuple(self._frames(window.seconds) for window in spoken),
            )  # fmt: skip
            said = self.decoder.generate(encoded.hidden, asked)
        for number, (i, of_window) in enumerate(zip(encoded.spoken, said)):
            language = languages[number] if languages else None
            found[i] = self._segments(windows[i], of_window.ids, of_window, language)
            if encoded.is_short and is_loop(found[i]):
                # Heard with less than the padding that the model knows, it may say the same again and again.
                (found[i],) = self.decode(self.encode([windows[i]], whole=True), [heard[i]])
        return found

    def _features(self, windows: Sequence[Window]) -> torch.Tensor:
        with self.stopwatch.stage("features"), np.errstate(over="ignore", invalid="ignore"):
            return self.processor.feature_extractor(
                [window.samples for window in windows], sampling_rate=self.rate, return_tensors="pt"
            ).input_features

    def _hidden(self, features: torch.Tensor, frames: int) -> np.ndarray:
        """float32 (windows, frames, width)."""
        if self.encoder is not None and (self.model is None or frames < self.context):
            return self.encoder(features[:, :, : 2 * frames].numpy())
        assert self.model is not None
        return self.model.model.encoder(features.to(self.model.dtype)).last_hidden_state.float().numpy()

    def _shortened(self, seconds: float) -> int:
        step = -(-self.context // LENGTHS)
        return min(self.context, -(-self._frames(seconds + MARGIN_SECONDS) // step) * step)

    def _frames(self, seconds: float) -> int:
        return min(self.context, int(np.ceil(seconds / self.window_seconds * self.context)))

    def _languages(self, hidden: Any, windows: Sequence[Window], heard: Sequence[Heard]) -> list[str] | None:
        """One code per window; None for an English-only model."""
        if not self.vocabulary.is_multilingual:
            return None
        if self.language is not None:
            return [self.language] * len(windows)
        assert self.decoder is not None
        chances = self.decoder.languages(hidden)
        return [h.hear(p, window.seconds) for h, p, window in zip(heard, chances, windows)]

    def _previous(self) -> tuple[int, ...]:
        """Tokens before the start: <|startofprev|>, hotwords, prompt, each at most half of what the decoder holds."""
        if not self.prompt.strip() and not self.hotwords.strip():
            return ()
        tokenizer = self.processor.tokenizer
        if not self.takes_prompts:
            raise XdnaError(
                f"this model takes no prompt and no hotwords: its tokenizer has no {PREVIOUS}; leave them out"
            )
        half = self.length // 2 - 1

        def tokens(text: str) -> list[int]:
            return tokenizer.encode(" " + text.strip(), add_special_tokens=False) if text.strip() else []

        first = tokens(self.hotwords)[:half]
        kept = half - len(first)
        return (
            tokenizer.get_vocab()[PREVIOUS],
            *first,
            *(tokens(self.prompt)[-kept:] if kept else []),
        )

    def _segments(
        self, window: Window, ids: list[int], said: Said | None = None, language: str | None = None
    ) -> list[Segment]:
        """Splits at the timestamps; a missing or backward one is replaced by where the window is loud."""
        first, last = speech_bounds(window.samples, window.rate)
        zero, special = self.vocabulary.zero, self.vocabulary.special
        tick = self.window_seconds / self.context
        pieces: list[tuple[float, float, list[int]]] = []
        begin: float | None = None
        tokens: list[int] = []
        if self.vocabulary.start in ids:  # a prompt stands before it
            ids = ids[ids.index(self.vocabulary.start) :]
        for token in ids:
            if token in special:  # the prompt is among the ids, and is not said
                continue
            if zero is None or token < zero:
                tokens.append(token)
                continue
            seconds = (token - zero) * tick
            if tokens:
                pieces.append((first if begin is None else begin, seconds, tokens))
                begin, tokens = None, []
            else:
                begin = seconds
        pieces.append((first if begin is None else begin, last, tokens))
        segments, at, before = [], 0.0, 0
        times = said.times if said else None
        if times is not None:
            times = without_pauses([(tick * begin, tick * end) for begin, end in times], window)
        for start, end, piece in pieces:
            before += len(piece)
            text = self.processor.tokenizer.decode(piece, skip_special_tokens=True).strip()
            if text:
                start = min(max(start, at), window.seconds)
                at = min(max(end, start), window.seconds)
                if at <= start:
                    at = window.seconds
                bounds = round(window.start + start, 3), round(window.start + at, 3)
                spoken: tuple[Word, ...] = ()
                if times is not None:
                    moments = [
                        (window.start + begin, window.start + finish)
                        for begin, finish in times[before - len(piece) : before]
                    ]
                    spoken = words(self.processor.tokenizer, piece, moments, language, bounds)
                segments.append(Segment(*bounds, text, spoken))
        return segments


def is_loop(segments: Sequence[Segment] | XdnaError) -> bool:
    """Whether the text repeats itself: it packs better than 2.4 to 1, OpenAI's own measure (transcribe.py)."""
    if isinstance(segments, XdnaError):
        return False
    text = " ".join(segment.text for segment in segments).encode()
    return len(text) > LOOP * len(zlib.compress(text))


def _not_finite(window: Window) -> XdnaError:
    loudest = float(np.abs(window.samples).max())
    return XdnaError(
        f"the features of {window.start:.2f} s to {window.start + window.seconds:.2f} s are NaN or infinite, because "
        f"its samples reach {loudest:.2g} where full scale is 1: make it quieter"
    )
