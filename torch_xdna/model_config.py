"""A Whisper model's configuration: of a folder, of a size by name, or of a model on the Hugging Face hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_xdna.errors import XdnaError
from torch_xdna.lowering.whisper import MODELS

# Entries that have no sensible default where an encoder is made from them.
_WHOLE = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins",
          "max_source_positions")  # fmt: skip


def read(model: str | Path) -> dict[str, Any]:
    """The entries of a model's config.json; only that is read, no weights. Raises XdnaError, one sentence.

    `model`: a folder, a size (tiny, base, ...), or a name like openai/whisper-base.
    """
    name = str(model)
    if name in MODELS:
        return of_size(name)
    config = _of_folder(Path(name)) if os.path.exists(name) or _is_a_path(name) else _of_hub(name)
    return _checked(config, name)


def of_size(name: str) -> dict[str, Any]:
    """The configuration of a size that OpenAI published."""
    size = MODELS[name]
    return {
        "model_type": "whisper", "d_model": size.width, "encoder_layers": size.layers,
        "encoder_attention_heads": size.heads, "encoder_ffn_dim": size.ffn, "num_mel_bins": size.mel,
        "max_source_positions": 1500,
    }  # fmt: skip


def _is_a_path(name: str) -> bool:
    """Names on the hub are `name` or `owner/name`."""
    return name.startswith((".", "~", os.sep)) or name.endswith(os.sep) or name.count(os.sep) > 1


def _of_folder(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not folder.is_dir():
        raise XdnaError(
            f"there is no folder '{folder}'; give a model's folder or a size: {', '.join(MODELS)}"
        )
    if not file.is_file():
        raise XdnaError(f"'{folder}' is no model folder: it has no config.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise XdnaError(f"'{file}' is not valid JSON: {error}; get the file again") from error
    if not isinstance(config, dict):
        raise XdnaError(
            f"'{file}' holds a JSON {type(config).__name__}, no configuration; get the file again"
        )
    return config


def _of_hub(name: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name).to_dict()
    except (OSError, ValueError) as error:
        raise XdnaError(
            f"no configuration of a model '{name}': it is no folder, no name on a hub that can be reached from "
            f"here, and no size ({', '.join(MODELS)})"
        ) from error


def _checked(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    kind = config.get("model_type")
    if kind != "whisper":
        raise XdnaError(f"'{name}' holds a model of type {kind!r}; only Whisper models are known here")
    for key in _WHOLE:
        value = config.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise XdnaError(f"{key} is {value!r} in the configuration of '{name}'; it must be a whole number")
    width, heads = config.get("d_model", 0), config.get("encoder_attention_heads", 1)
    if width % heads:
        raise XdnaError(
            f"d_model {width} is no multiple of encoder_attention_heads {heads} in the configuration of '{name}'; "
            "Whisper's heads are of equal size"
        )
    return dict(config)
