"""`torch_xdna.load`: an exported encoder on the NPU or the array simulator. numpy, and no torch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from torch_xdna.devices.npu.overlay import fingerprint
from torch_xdna.encoder.doors import Run, open_door
from torch_xdna.encoder.encoder import checked_mel
from torch_xdna.errors import DeviceError, XdnaError
from torch_xdna.exported.describe import from_json
from torch_xdna.exported.file import File
from torch_xdna.lowering.program import Placement, Program

DEVICES = ("npu", "array")


def load(path: str | Path, device: str = "npu") -> Exported:
    """The encoder that `torch_xdna.export` wrote to `path`, on that device (npu or array).

    Raises XdnaError (the file) or DeviceError (the device)."""
    if device not in DEVICES:
        raise DeviceError(
            f"an exported encoder runs on {' or '.join(DEVICES)}, not on '{device}': the emulator takes a model itself"
        )
    file = File(path)
    columns, overlay = file.manifest["columns"], file.manifest["overlay"]
    if overlay != fingerprint(columns):
        raise XdnaError(
            f"{path} was exported for the overlay {overlay} and this version has {fingerprint(columns)}; export it "
            "again"
        )
    return Exported(file, device)


class Exported:
    """Callable: (clips, mel bins, frames) or (mel bins, frames) -> float32 (clips, frames / 2, width).

    `contexts`: the lengths that are in the file. Threads may share it.
    """

    def __init__(self, file: File, device: str) -> None:
        manifest = file.manifest
        self.contexts = tuple(sorted(map(int, manifest["programs"])))
        self.context = self.contexts[-1]
        self.mel, self.width, self.source = manifest["mel"], manifest["width"], manifest["source"]
        self._file = file
        self._door = open_door(device, manifest["columns"])
        self._runs: dict[int, Run] = {}
        self._lock = threading.Lock()
        self.prepare()

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """Raises XdnaError for a shape that is not in the file and DeviceError where the device fails."""
        mel = checked_mel(mel, self.mel, self.context)
        frames = mel.shape[-1] // 2
        if frames not in self.contexts:
            lengths = ", ".join(str(2 * context) for context in self.contexts)
            raise XdnaError(
                f"features of {2 * frames} frames are not in {self._file.path}, which has {lengths}: pad them, or "
                f"export with --context {frames}"
            )
        clips = [[np.ascontiguousarray(clip.T, np.float32)] for clip in mel]
        if not clips:
            return np.zeros((0, frames, self.width), np.float32)
        return np.stack([out for (out,) in self.prepare(frames)(clips)])

    def prepare(self, context: int | None = None) -> Run:
        """Weights and words of a length on the device, when they are first wanted; the longest at once."""
        context = context or self.context
        with self._lock:
            if context not in self._runs:
                program, packed = self._program(context)
                self._runs[context] = self._door.loaded(program)(packed)
            return self._runs[context]

    def _program(self, context: int) -> tuple[Program, np.ndarray]:
        described: dict[str, Any] = self._file.manifest["programs"][str(context)]
        packed = self._file.tensor(f"weights.{context}")
        words = [self._file.tensor(f"words.{context}.{n}") for n in range(described["dispatches"])]
        self._door.check(described["kinds"])
        program = Program(
            name=f"{self.source['name']}, context {context}",
            columns=self._file.manifest["columns"],
            commands=(),
            step_of_command=(),
            steps=(),
            memory=Placement(packed.nbytes, described["activations_bytes"], ()),
            weights=(),
            inputs=from_json(described["inputs"]),
            outputs=from_json(described["outputs"]),
            dispatches=tuple(words),
        )
        return program, packed
