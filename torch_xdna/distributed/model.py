"""A Whisper checkpoint for a job: what the reading tasks must know of it, and how workers load it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch_xdna import speech
from torch_xdna.distributed.claims import Claims
from torch_xdna.speech.engine import Engine, Wanted
from torch_xdna.speech.opening import load


class Checkpoint:
    """By folder or Hugging Face id, None for the shipped one. Raises XdnaError for what is no model, and for a
    language or task that it does not have: here, once, and not in every worker."""

    def __init__(self, model: str | None, asked: Wanted, device: str, decoder: str) -> None:
        # Workers have working folders of their own.
        self._model = str(Path(model).resolve()) if model is not None and Path(model).exists() else model
        self._device = device
        transcriber = load(self._model or speech.CHECKPOINT, decoder=decoder, device="emulator")
        transcriber.choose(asked.language, asked.task)
        transcriber.prompt = asked.prompt
        transcriber.check()
        assert transcriber.decoder is not None
        # Every worker's, and in the job's record: two decoders differ in a word now and then.
        self._decoder = transcriber.decoder.name
        self.name = f"{model or 'torch-xdna'}, decoder {self._decoder}"
        self.rate, self.window_seconds = transcriber.rate, transcriber.window_seconds

    def load(self, claims: Claims) -> Callable[[], Engine]:
        auto = "npu" if claims.resources else "emulator"
        device = self._device.replace("auto", auto)
        model, decoder, threads = self._model, self._decoder, claims.threads

        def load_it() -> Engine:
            import torch

            from torch_xdna.speech.whisper_engine import load as load_engine

            torch.set_num_threads(threads)
            return load_engine(model, None, device, decoder=decoder, vad=False)

        return load_it
