"""A Whisper encoder on a device: numpy in, numpy out, one program per length."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from torch_xdna.encoder.doors import Door, Run, open_door
from torch_xdna.encoder.weights import Ct2Weights
from torch_xdna.errors import DeviceError, XdnaError
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.whisper import EncoderConfig, encoder_region

LENGTHS_KEPT = 4  # programs with their weights: the model's own length and a few shorter ones


class _Cut(Mapping[str, np.ndarray]):
    """The weights for a shorter context: only the position embedding changes."""

    def __init__(self, weights: Mapping[str, np.ndarray], context: int) -> None:
        self._weights, self._context = weights, context

    def __getitem__(self, name: str) -> np.ndarray:
        value = self._weights[name]
        if name == "embed_positions.weight":
            return np.ascontiguousarray(value[: self._context])
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


class Encoder:
    """`config`, `context`: the model's sizes; `weights`: by name, fp32, as WhisperEncoder's state dict names them.

    May be called from several threads. The program for a length is made when that length first comes; the last
    LENGTHS_KEPT are kept.
    """

    def __init__(
        self, config: EncoderConfig, context: int, weights: Mapping[str, np.ndarray], door: Door
    ) -> None:
        self.config, self.context, self.door = config, context, door
        self._weights = weights
        self._runs: dict[int, Run] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_ct2(cls, folder: str | Path, *, device: str = "auto", columns: int = 4) -> Encoder:
        """From a CTranslate2 folder: float32, float16, bfloat16, int16 or int8 weights. Raises XdnaError."""
        door = open_door(device, columns)
        weights = Ct2Weights.read(folder)
        return cls(weights.config, weights.context, weights, door)

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """(clips, mel bins, frames) or (mel bins, frames) -> float32 (clips, frames / 2, width).

        `frames`: an even number, at most twice the context (3000 for 30 s). Raises XdnaError for another shape and
        DeviceError where the device fails.
        """
        mel = checked_mel(mel, self.config.mel, self.context)
        frames = mel.shape[-1]
        if not len(mel):
            return np.zeros((0, frames // 2, self.config.width), np.float32)
        clips = [[np.ascontiguousarray(clip.T, np.float32)] for clip in mel]
        return np.stack([out for (out,) in self.prepare(frames // 2)(clips)])

    def elsewhere(self, device: str) -> Encoder:
        """The same weights on another device. Raises DeviceError."""
        return Encoder(self.config, self.context, self._weights, open_door(device))

    def summary(self) -> str:
        """`1 region on npu, context 1500`."""
        lengths = ", ".join(map(str, self._runs))
        return f"{len(self._runs)} region{'' if len(self._runs) == 1 else 's'} on {self.door.name}, context {lengths}"

    def prepare(self, context: int | None = None) -> Run:
        """The program for a context (None: the model's own), with its weights on the device."""
        context = context or self.context
        with self._lock:
            run = self._runs.pop(context, None)
            if run is None:
                try:
                    pack = self.door.prepare(encoder_region(self.config, context))
                except LoweringError as error:
                    raise DeviceError(
                        f"device '{self.door.name}' can't take this encoder at context {context}: {error}"
                    ) from error
                run = pack(cut(self._weights, context))
                while len(self._runs) >= LENGTHS_KEPT:
                    del self._runs[next(iter(self._runs))]
            self._runs[context] = run  # last: the youngest
            return run


def checked_mel(mel: np.ndarray, bins: int, context: int) -> np.ndarray:
    """As (clips, bins, frames). Raises XdnaError for another shape than an encoder takes."""
    mel = np.asarray(mel)
    mel = mel[None] if mel.ndim == 2 else mel
    frames = mel.shape[-1] if mel.ndim == 3 else 0
    if mel.ndim != 3 or mel.shape[1] != bins or frames % 2 or not 0 < frames <= 2 * context:
        raise XdnaError(
            f"the encoder can't take features of shape {mel.shape}: it wants (clips, {bins} mel bins, frames) with an "
            f"even number of frames up to {2 * context}; use the model's own feature extractor"
        )
    return mel


def cut(weights: Mapping[str, np.ndarray], context: int) -> Mapping[str, np.ndarray]:
    """The weights for a context: only the position embedding changes."""
    return _Cut(weights, context)
