"""An Engine (engine.py) on a Whisper checkpoint, with its encoder on a device."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from torch_xdna import devices, speech
from torch_xdna.errors import XdnaError
from torch_xdna.report import reports
from torch_xdna.speech import transcriber as transcribers
from torch_xdna.speech.engine import EAGER, Asked, Ran
from torch_xdna.speech.heard import Heard
from torch_xdna.speech.transcriber import Transcriber
from torch_xdna.speech.windows import Window
from torch_xdna.switches import switched_off

SHIPPED = "torch-xdna"  # how clients call the checkpoint that comes with the package
WARM_UP = (1, 2)  # batch sizes that compile what all others then use


class WhisperEngine:
    """A Whisper checkpoint with its encoder on `device` (of torch_xdna.devices.NAMES)."""

    def __init__(self, transcriber: Transcriber, name: str, device: str) -> None:
        self.transcriber, self.name, self.device = transcriber, name, device

    @property
    def rate(self) -> int:
        return self.transcriber.rate

    @property
    def window_seconds(self) -> float:
        return self.transcriber.window_seconds

    @property
    def is_multilingual(self) -> bool:
        return self.transcriber.vocabulary.is_multilingual

    @property
    def languages(self) -> Sequence[str]:
        return sorted(self.transcriber.vocabulary.languages) or ["en"]

    @property
    def takes_prompts(self) -> bool:
        return self.transcriber.takes_prompts

    gives_words = False
    no_words = "the decoder that runs here does not tell them"

    def language(self, name: str) -> str | None:
        try:
            return self.transcriber.vocabulary.language(name)
        except XdnaError:
            return None

    def run(self, windows: Sequence[Window], heard: Sequence[Heard], asked: Asked) -> Ran:
        self.transcriber.choose(asked.language, asked.task)
        self.transcriber.prompt, self.transcriber.temperature = asked.prompt, asked.temperature
        before = sum(self.failures().values())
        found = self.transcriber.transcribe(windows, heard)
        failed = sum(self.failures().values()) > before
        return Ran(found, (self.device, EAGER) if failed and self.device != EAGER else (self.device,))

    def failures(self) -> dict[str, int]:
        return dict(sum((report.failures for report in reports()), Counter()))

    def warm_up(self) -> None:
        """Compiles before the first client waits for it; noise, because silence is not transcribed."""
        noise = np.random.default_rng(0).normal(0, 0.01, self.rate).astype(np.float32)
        for size in WARM_UP:
            self.run([Window(0.0, noise, self.rate)] * size, [Heard() for _ in range(size)], Asked())


def load(model: str | None, name: str | None, device: str) -> WhisperEngine:
    """A checkpoint by folder or Hugging Face id (None: the shipped one), compiled and warm. Raises XdnaError."""
    found = devices.select(device).name  # an unusable device is said before a model is loaded
    if off := switched_off():
        if device in ("npu", "array"):
            raise XdnaError(f"--device {device} can't run the encoder, because {off}")
        warnings.warn(f"the encoder runs eager on the CPU, because {off}", stacklevel=2)
        found = EAGER
    transcriber = transcribers.load(model or speech.CHECKPOINT)
    transcriber.model.model.encoder.compile(backend="xdna", options={"device": device})
    name = name or (Path(model).name if model else SHIPPED)
    engine = WhisperEngine(transcriber, name, found)
    engine.warm_up()
    return engine
