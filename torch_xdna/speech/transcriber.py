"""A Whisper model and its processor as one thing that turns windows of samples into segments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging as hf_logging

from torch_xdna import configuration
from torch_xdna.errors import XdnaError
from torch_xdna.speech.stopwatch import Stopwatch
from torch_xdna.speech.subtitles import Segment
from torch_xdna.speech.windows import Window, speech_bounds


@dataclass
class Transcriber:
    model: WhisperForConditionalGeneration
    processor: WhisperProcessor
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def rate(self) -> int:
        """Samples per second that the model wants."""
        return self.processor.feature_extractor.sampling_rate

    @property
    def window_seconds(self) -> float:
        """Length of the model's context: 30 for OpenAI's models, 10 for the shipped one."""
        return float(self.processor.feature_extractor.chunk_length)

    @torch.inference_mode()
    def transcribe(self, windows: Sequence[Window]) -> list[list[Segment]]:
        """The segments of every window, at most `window_seconds` each; one pass of the encoder for all of
        them.
        """
        spoken = [window for window in windows if not window.is_silent]
        if not spoken:
            return [[] for _ in windows]
        with self.stopwatch.stage("features"):
            features = self.processor.feature_extractor(
                [window.samples for window in spoken], sampling_rate=self.rate, return_tensors="pt"
            ).input_features.to(self.model.dtype)
        with self.stopwatch.stage("encoder"):
            hidden = self.model.model.encoder(features).last_hidden_state
        with self.stopwatch.stage("decoder"):
            sequences = self._generate(hidden)
        found = iter([self._segments(window, ids.tolist()) for window, ids in zip(spoken, sequences)])
        return [[] if window.is_silent else next(found) for window in windows]

    def _generate(self, hidden: torch.Tensor) -> torch.Tensor:
        """Token ids with timestamps where the model has them; one window each, so no sequential long-form
        loop.
        """
        return self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            return_timestamps=self._timestamps_from() is not None,
            force_unique_generate_call=True,
        )

    def _timestamps_from(self) -> int | None:
        """The id of <|0.00|>, or None for a model without timestamps."""
        silent = getattr(self.model.generation_config, "no_timestamps_token_id", None)
        return None if silent is None else silent + 1

    def _segments(self, window: Window, ids: list[int]) -> list[Segment]:
        """Splits at the timestamps; a missing or backward one is replaced by where the window is loud."""
        first, last = speech_bounds(window.samples, window.rate)
        zero = self._timestamps_from()
        tick = self.window_seconds / self.model.config.max_source_positions
        pieces: list[tuple[float, float, list[int]]] = []
        begin, words = None, []
        for token in ids:
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


def load(name: str | Path) -> Transcriber:
    """A Whisper checkpoint by folder or by Hugging Face id, in fp32. Raises XdnaError in one sentence."""
    hf_logging.set_verbosity_error()  # its advice is for those who call it themselves
    hf_logging.disable_progress_bar()
    if os.path.exists(name) or os.path.isabs(name):
        configuration.read(name)
    try:
        model = WhisperForConditionalGeneration.from_pretrained(name, dtype=torch.float32)
        processor: Any = WhisperProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise XdnaError(f"no Whisper model can be loaded from '{name}': {reason}.") from error
    return Transcriber(model.eval(), processor)
