"""A checkpoint of Hugging Face's in CTranslate2's format: made once, kept in the cache folder.

CTranslate2's own converter does it, on the model that is loaded already (its hooks `load_model` and `load_tokenizer`
are there for that), so that what was checked is what is converted. The cache's key holds the files' names, sizes and
times: a checkpoint that changes is converted again.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch_xdna.errors import XdnaError
from torch_xdna.kernels_xdna1.host_compiler import cache_directory
from torch_xdna.speech.decoders import ct2

FORMAT = 1  # of the folders made here


def converted(name: str | Path, model: Any, tokenizer: Any) -> Path:
    """The folder for the checkpoint `name` (folder or hub id), loaded as `model`. Raises XdnaError."""
    if reason := ct2.missing():
        raise XdnaError(f"CTranslate2's decoder can't be used, because {reason}")
    quantization = ct2.compute_type()
    target = cache_directory() / "ctranslate2" / f"{_key(name, model)}-{quantization}-{FORMAT}"
    if (target / "model.bin").exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="part-", dir=target.parent))
    except OSError as error:
        raise XdnaError(f"the model can't be converted for CTranslate2: {error.strerror} ({error.filename}); point "
                        "TORCH_XDNA_CACHE at a folder that can be written") from error  # fmt: skip
    try:
        _convert(str(name), model, tokenizer, work / "model", quantization)
        os.replace(work / "model", target)
    except OSError as error:
        if not (target / "model.bin").exists():  # another process was there first
            raise XdnaError(
                f"the model can't be converted for CTranslate2: {error.strerror or error}; make room in {target.parent}"
            ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _convert(name: str, model: Any, tokenizer: Any, folder: Path, quantization: str) -> None:
    from ctranslate2.converters import TransformersConverter

    class Loaded(TransformersConverter):
        def load_model(self, model_class: Any, model_name_or_path: str, **_: Any) -> Any:
            return copy.deepcopy(model)  # the converter quantizes fp32 weights in place

        def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **_: Any) -> Any:
            return tokenizer

    try:
        Loaded(name).convert(str(folder), quantization=quantization)
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise XdnaError(f"CTranslate2 can't convert '{name}': {reason}; use --decoder hf") from error


def _key(name: str | Path, model: Any) -> str:
    """Of a folder, or of the snapshot that the hub's cache holds."""
    folder = Path(name)
    if not folder.is_dir():
        from transformers.utils import cached_file

        folder = Path(
            cached_file(str(name), "config.json", _raise_exceptions_for_missing_entries=False) or name
        ).parent
    listed = [str(folder.resolve())]
    for path in sorted(folder.glob("*")):
        stat = path.stat()
        listed.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join([*listed, str(model.config.to_json_string())]).encode()).hexdigest()[:24]
