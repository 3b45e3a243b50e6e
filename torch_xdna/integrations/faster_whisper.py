"""faster-whisper with its encoder on the NPU: the same class name, the same arguments, the same results.

    from torch_xdna.integrations.faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel("base", device="npu", compute_type="int8")
    segments, info = model.transcribe("talk.m4a", vad_filter=True, word_timestamps=True)

The encoder's weights come from the CTranslate2 model itself, so nothing else is downloaded; the decoder, voice
detection, batching and word times are faster-whisper's own. Needs the extra `fast` (faster-whisper).
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from torch_xdna.encoder.doors import NAMES, open_door
from torch_xdna.encoder.encoder import Encoder
from torch_xdna.encoder.weights import Ct2Weights
from torch_xdna.errors import DeviceError, SettingsError, XdnaError
from torch_xdna.exported.load import Exported, load

try:
    import ctranslate2
    import faster_whisper
    from faster_whisper import BatchedInferencePipeline
    from faster_whisper.utils import download_model
except ImportError as error:
    raise XdnaError(
        f"faster-whisper can't be imported ({error}): pip install '.[fast]' in the checkout, or "
        "pip install faster-whisper"
    ) from error

__all__ = ["BatchedInferencePipeline", "WhisperModel", "XdnaEncoding"]

THEIRS = ("cpu", "cuda")  # devices that CTranslate2 has: its own encoder runs, and nothing of ours


class XdnaEncoding:
    """Mixed into a `faster_whisper.WhisperModel`: its `encode` on a device of ours.

    `xdna_encoder`: None where CTranslate2's own encoder was asked for. A device that fails in the middle of its work
    is replaced by CTranslate2's encoder, with a warning that says why; with fallback="error" the call raises.
    """

    xdna_encoder: Encoder | Exported | None = None
    fallback: str = "eager"
    _failed: bool = False

    def encode(self, features: np.ndarray) -> ctranslate2.StorageView:
        """(mel bins, frames) or (clips, mel bins, frames) -> hidden states, as the decoder takes them."""
        encoder = self.xdna_encoder
        if encoder is None:
            return super().encode(features)  # type: ignore[misc]
        try:
            hidden = encoder(features)
        except DeviceError as error:
            if self.fallback == "error":
                raise
            if not self._failed:
                self._failed = True
                warnings.warn(
                    f"xdna: the encoder runs in CTranslate2 on the CPU, because {error}", stacklevel=2
                )
            return super().encode(features)  # type: ignore[misc]
        return ctranslate2.StorageView.from_array(np.ascontiguousarray(hidden, np.float32))


class WhisperModel(XdnaEncoding, faster_whisper.WhisperModel):
    """`faster_whisper.WhisperModel` whose encoder runs on `device`.

    device: auto (the NPU if it is usable here, else the emulator with one warning that says why), npu, emulator,
        array. cpu and cuda are CTranslate2's: everything as in faster-whisper, for comparison.
    columns: how many columns of the array to use: 4, 2 or 1.
    encoder: a file of `torch-xdna export`, to start sooner; None makes the encoder from the model's own weights.
    fallback: `eager` runs CTranslate2's encoder when the device fails while it works, `error` raises DeviceError.

    Everything else is faster-whisper's; `compute_type` and `cpu_threads` are the decoder's. Threads may share it.
    Raises XdnaError (one sentence) for what can't be loaded or a device that is not usable.
    """

    def __init__(
        self,
        model_size_or_path: str,
        device: str = "auto",
        device_index: int | list[int] = 0,
        compute_type: str = "default",
        cpu_threads: int = 0,
        num_workers: int = 1,
        download_root: str | None = None,
        local_files_only: bool = False,
        files: dict[str, Any] | None = None,
        revision: str | None = None,
        use_auth_token: str | bool | None = None,
        *,
        columns: int = 4,
        fallback: str = "eager",
        encoder: str | Path | None = None,
        **model_kwargs: Any,
    ) -> None:
        if device not in (*NAMES, *THEIRS):
            raise SettingsError(
                f"there is no device '{device}'; the devices are {', '.join((*NAMES, *THEIRS))}"
            )
        if fallback not in ("eager", "error"):
            raise SettingsError(f"fallback is '{fallback}'; valid values: 'eager', 'error'")
        self.fallback = fallback
        ours = device in NAMES
        if encoder is not None:
            if not ours or device == "emulator":
                raise SettingsError(
                    f"encoder={str(encoder)!r} runs on npu or array, not on '{device}'; leave it out"
                )
            self.xdna_encoder = load(encoder, "npu" if device == "auto" else device)
        # An unusable device is said before anything is loaded.
        door = open_door(device, columns) if ours and encoder is None else None
        path = str(model_size_or_path)
        if files:
            files = {name: _content(file) for name, file in files.items()}
        elif not os.path.isdir(path):
            path = download_model(
                path,
                local_files_only=local_files_only,
                cache_dir=download_root,
                revision=revision,
                use_auth_token=use_auth_token,
            )
        if door is not None:
            weights = _weights(path, files)
            self.xdna_encoder = Encoder(weights.config, weights.context, weights, door)
        super().__init__(
            path,
            device="cpu" if ours else device,
            device_index=device_index,
            compute_type=compute_type,
            cpu_threads=cpu_threads,
            num_workers=num_workers,
            files=files,
            **model_kwargs,
        )
        if self.xdna_encoder is not None:
            self._check_sizes(path)
            self.xdna_encoder.prepare()

    def _check_sizes(self, path: str) -> None:
        """An exported encoder of another model would write nonsense."""
        found = self.xdna_encoder
        if isinstance(found, Exported) and found.mel != self.model.n_mels:
            raise XdnaError(
                f"the exported encoder of {found.source['name']} takes {found.mel} mel bins and {path} makes "
                f"{self.model.n_mels}; export the encoder of this model"
            )


def _weights(path: str, files: dict[str, Any] | None) -> Ct2Weights:
    if files:
        from torch_xdna.encoder import ct2

        return Ct2Weights.of(ct2.parsed(files["model.bin"], f"{path} (model.bin)"), path)
    if not (Path(path) / "model.bin").exists():
        raise XdnaError(
            f"{path} holds no model.bin, so it is no CTranslate2 model: convert it with ct2-transformers-converter "
            f"--model {path} --output_dir FOLDER --copy_files tokenizer.json preprocessor_config.json"
        )
    return Ct2Weights.read(path)


def _content(file: Any) -> Any:
    """File-like objects are read twice (by CTranslate2 and here), so they become bytes."""
    return file.read() if isinstance(file, io.IOBase) or hasattr(file, "read") else file
