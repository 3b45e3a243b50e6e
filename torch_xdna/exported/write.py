"""`torch_xdna.export`: lower once per length, pack the weights, write everything into one file in one step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from torch_xdna.devices.npu.overlay import fingerprint
from torch_xdna.encoder.encoder import cut
from torch_xdna.errors import XdnaError
from torch_xdna.exported import file
from torch_xdna.exported.describe import to_json
from torch_xdna.exported.sources import source
from torch_xdna.lowering import lower
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.whisper import encoder_region

COLUMNS = (1, 2, 4)


def export(encoder: Any, path: str | Path, columns: int = 4, contexts: Sequence[int] | None = None) -> Path:
    """Write an encoder as one file, `path`, that `torch_xdna.load` runs without torch; returns the path.

    encoder: a Whisper encoder of Hugging Face's or openai-whisper's, a model that has one, a model's folder (also
    CTranslate2's) or hub id. columns: 4, 2 or 1, as the option of torch.compile. contexts: encoder frames (half of the
    mel frames) of the lengths wanted, None for the model's own (1500: 30 s); each has its own packed weights there.
    Raises XdnaError.
    """
    if columns not in COLUMNS:
        raise XdnaError(f"{columns} columns can't be exported for: the array has 1, 2 or 4")
    found = source(encoder)
    wanted = sorted(set(contexts or (found.context,)))
    if wrong := [context for context in wanted if not 0 < context <= found.context]:
        raise XdnaError(f"context {wrong[0]} can't be exported: this encoder has 1 to {found.context}")
    tensors: dict[str, np.ndarray] = {}
    programs = {}
    for context in wanted:
        try:
            program = lower(encoder_region(found.config, context), columns=columns)
        except LoweringError as error:
            raise XdnaError(f"this encoder can't be exported at context {context}: {error}") from error
        tensors[f"weights.{context}"] = program.pack_weights(cut(found.weights, context))
        for number, words in enumerate(program.dispatches):
            tensors[f"words.{context}.{number}"] = np.ascontiguousarray(words, np.uint32)
        programs[str(context)] = {
            "dispatches": len(program.dispatches),
            "activations_bytes": program.activations_bytes,
            "inputs": to_json(program.inputs),
            "outputs": to_json(program.outputs),
            "kinds": sorted({step.kind for step in program.steps}),
        }
    manifest = {
        "version": _version(),
        "overlay": fingerprint(columns),
        "columns": columns,
        "source": {"name": found.name, "sha256": _digest(found.weights)},
        "mel": found.config.mel,
        "width": found.config.width,
        "layers": found.config.layers,
        "programs": programs,
    }
    _write(Path(path), file.content(tensors, manifest))
    return Path(path)


def _digest(weights: Any) -> str:
    """Of the weights in fp32, by name: the same for every format that holds the same numbers."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + np.ascontiguousarray(weights[name], np.float32).tobytes())
    return digest.hexdigest()


def _version() -> str:
    try:
        return version("torch-xdna")
    except PackageNotFoundError:
        return "not installed"


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        raise XdnaError(f"{path} can't be written: {error.strerror}; name another file") from error
    finally:
        beside.unlink(missing_ok=True)
