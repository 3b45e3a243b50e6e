"""A Whisper checkpoint for a job: what the reading tasks must know of it, and how workers load it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch_xdna import speech
from torch_xdna.distributed.claims import Claims
from torch_xdna.speech.engine import Asked, Engine
from torch_xdna.speech.loading import load_whole
from torch_xdna.speech.transcriber import Transcriber


class Checkpoint:
    """By folder or Hugging Face id, None for the shipped one. Raises XdnaError for what is no model, and for a
    language or task that it does not have: here, once, and not in every worker."""

    def __init__(self, model: str | None, asked: Asked, device: str) -> None:
        self.name = model or "torch-xdna"
        # Workers have working folders of their own.
        self._model = str(Path(model).resolve()) if model is not None and Path(model).exists() else model
        self._device = device
        transcriber = Transcriber(*load_whole(self._model or speech.CHECKPOINT))
        transcriber.choose(asked.language, asked.task)
        self.rate, self.window_seconds = transcriber.rate, transcriber.window_seconds

    def load(self, claims: Claims) -> Callable[[], Engine]:
        auto = "npu" if claims.resources else "emulator"
        model, device, threads = self._model, self._device.replace("auto", auto), claims.threads

        def load() -> Engine:
            import torch

            from torch_xdna.speech.whisper_engine import load as load_engine

            torch.set_num_threads(threads)
            return load_engine(model, None, device)

        return load
