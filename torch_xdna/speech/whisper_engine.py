"""An Engine (engine.py) on a Whisper checkpoint, with its encoder on a device."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from torch_xdna import devices, speech
from torch_xdna.encoder import Encoder
from torch_xdna.errors import DeviceError, XdnaError
from torch_xdna.report import reports
from torch_xdna.speech import opening, voice
from torch_xdna.speech.engine import EAGER, Ran, Wanted
from torch_xdna.speech.heard import Heard
from torch_xdna.speech.subtitles import Segment
from torch_xdna.speech.transcriber import Transcriber
from torch_xdna.speech.windows import Window
from torch_xdna.speech.windows import windows as cut_by_loudness
from torch_xdna.switches import switched_off

SHIPPED = "torch-xdna"  # how clients call the checkpoint that comes with the package
WARM_UP = (1, 2)  # batch sizes that compile what all others then use


class WhisperEngine:
    """A Whisper checkpoint with its encoder on `device` (of torch_xdna.devices.NAMES). `vad`: whether Silero's voice
    detector cuts recordings, else loudness."""

    def __init__(self, transcriber: Transcriber, name: str, device: str, vad: bool) -> None:
        self.transcriber, self.name, self.device, self._vad = transcriber, name, device, vad
        self._failures: Counter[str] = Counter()
        self._spare: Encoder | None = (
            None  # for a device that fails where no compiled encoder falls back by itself
        )

    @property
    def rate(self) -> int:
        return self.transcriber.rate

    @property
    def is_multilingual(self) -> bool:
        return self.transcriber.vocabulary.is_multilingual

    @property
    def languages(self) -> Sequence[str]:
        return sorted(self.transcriber.vocabulary.languages) or ["en"]

    @property
    def takes_prompts(self) -> bool:
        return self.transcriber.takes_prompts

    def language(self, name: str) -> str | None:
        try:
            return self.transcriber.vocabulary.language(name)
        except XdnaError:
            return None

    def windows(self, blocks: Iterable[np.ndarray]) -> Iterator[Window]:
        rate, seconds = self.rate, self.transcriber.window_seconds
        if self._vad:
            return voice.spoken_windows(blocks, rate, seconds, voice.Voice())
        return cut_by_loudness(blocks, rate, seconds)

    def run(self, windows: Sequence[Window], heard: Sequence[Heard], wanted: Wanted) -> Ran:
        self.transcriber.choose(wanted.language, wanted.task)
        self.transcriber.prompt, self.transcriber.temperature = wanted.prompt, wanted.temperature
        self.transcriber.word_times = wanted.words
        before = sum(self.failures().values())
        try:
            found = self.transcriber.transcribe(windows, heard)
        except DeviceError as error:
            if self.transcriber.model is not None or self.transcriber.encoder is None:
                raise
            found = self._transcribe_on_spare(windows, heard, error)
        failed = sum(self.failures().values()) > before
        return Ran(found, (self.device, EAGER) if failed and self.device != EAGER else (self.device,))

    def _transcribe_on_spare(
        self, windows: Sequence[Window], heard: Sequence[Heard], error: DeviceError
    ) -> list[list[Segment] | XdnaError]:
        """A folder in CTranslate2's format has no encoder of torch's to fall back to, so it is the emulator."""
        sentence = f"the encoder runs on the CPU, because {error}"
        self._failures[sentence] += 1
        if self._failures[sentence] == 1:
            warnings.warn(f"xdna: {sentence}", stacklevel=2)
        mine = self.transcriber.encoder
        assert mine is not None
        if self._spare is None:
            self._spare = mine.elsewhere("emulator")
        self.transcriber.encoder = self._spare
        try:
            return self.transcriber.transcribe(windows, heard)
        finally:
            self.transcriber.encoder = mine

    def failures(self) -> dict[str, int]:
        return dict(sum((report.failures for report in reports()), Counter(self._failures)))

    def warm_up(self) -> None:
        """Compiles before the first client waits for it; noise, because silence is not transcribed."""
        noise = np.random.default_rng(0).normal(0, 0.01, self.rate).astype(np.float32)
        for size in WARM_UP:
            self.run([Window(0.0, noise, self.rate)] * size, [Heard() for _ in range(size)], Wanted())


def load(
    model: str | None, name: str | None, device: str, *, decoder: str = "auto", vad: bool | None = None
) -> WhisperEngine:
    """A checkpoint by folder or Hugging Face id (None: the shipped one) or a folder in CTranslate2's format, compiled
    and warm. decoder: as of `opening.load`; vad: None takes the voice detector where it is installed. Raises
    XdnaError."""
    found = devices.select(device).name  # an unusable device is said before a model is loaded
    if off := switched_off():
        if device in ("npu", "array"):
            raise XdnaError(f"--device {device} can't run the encoder, because {off}")
        warnings.warn(f"the encoder runs eager on the CPU, because {off}", stacklevel=2)
        found = EAGER
    transcriber = opening.load(model or speech.CHECKPOINT, decoder=decoder, device=device)
    name = name or (Path(model).name if model else SHIPPED)
    reason = voice.missing() or (
        "" if transcriber.rate == voice.RATE else f"the model wants {transcriber.rate} Hz"
    )
    if vad and reason:
        raise XdnaError(f"the voice detector can't be had, because {reason}")
    engine = WhisperEngine(transcriber, name, found, vad=not reason if vad is None else vad)
    engine.warm_up()
    return engine
