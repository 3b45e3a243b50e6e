"""Loads a Whisper checkpoint that is whole, or says in one sentence what is missing.

Hugging Face fills weights that are not in the files with random numbers, skips those that the configuration does not
know, and makes an empty tokenizer where there is none. Each of them ends in wrong words, so each is refused here.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.utils import logging as hf_logging

from torch_xdna import model_config as configuration
from torch_xdna.errors import XdnaError
from torch_xdna.speech.vocabulary import Vocabulary

_POINTER = b"version https://git-lfs.github.com/spec/"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What a model on the hub is made of, beside files for other programs; the older kind of weights where the newer is not.
_SMALL = ("*.json", "*.txt")
_PATTERNS = (("model.safetensors", "model-*.safetensors"), ("pytorch_model.bin", "pytorch_model-*.bin"))
_SHOWN = 3  # names in a sentence; the rest is counted

# Rows of the embedding -> id of <|endoftext|>, in OpenAI's three vocabularies. The last 1501 rows are timestamps.
_OPENAI = {51_864: 50_256, 51_865: 50_257, 51_866: 50_257}
_TIMESTAMPS = 1_501
_PADDING = 128  # embeddings are padded to multiples of up to this


def load_whole(name: str | Path) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Model (fp32, in evaluation mode) and processor, by folder or Hugging Face id. Raises XdnaError."""
    hf_logging.set_verbosity_error()  # its advice is for those who call it themselves
    hf_logging.disable_progress_bar()
    try:
        is_folder = os.path.exists(name) or os.path.isabs(name)
        folder = Path(name) if is_folder else _fetched(str(name))
        stated = configuration.read(folder)
        _check_files(folder)
        model, info = _quietly(
            WhisperForConditionalGeneration.from_pretrained,
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        _check_weights(model, info)
        processor = _quietly(WhisperProcessor.from_pretrained, folder)
        _check_features(model, processor.feature_extractor)
        _check_vocabulary(model, processor.tokenizer, stated)
    except _Unfit as reason:
        raise XdnaError(f"no Whisper model can be loaded from '{name}': {reason}.") from reason
    return model.eval(), processor


class _Unfit(Exception):
    """What is wrong with the checkpoint, without its name and full stop."""


def _fetched(name: str) -> Path:
    """The folder in Hugging Face's cache that holds the model of that name, fetched where it is not there yet."""
    try:
        folder = Path(_quietly(snapshot_download, name, allow_patterns=[*_SMALL, *_PATTERNS[0]]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(_quietly(snapshot_download, name, allow_patterns=[*_SMALL, *_PATTERNS[1]]))
    except _Unfit as reason:
        raise _Unfit(
            f"there is no such folder, and the Hugging Face hub gives no model of that name here ({reason})"
        ) from reason
    return folder


def _quietly(load: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load(*args, **kwargs)
    except Exception as error:  # files of any content raise anything: pickle's, zip's, tokenizers' own errors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _Unfit(lines[0].rstrip(".: ")) from error


def _check_files(folder: Path) -> None:
    """What can be seen without loading: files that are missing, cut, or stand for others."""
    for path in sorted(folder.glob("*.json")):
        _check_content(path)
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise _Unfit(f"{path.name} is not valid JSON ({error}); get the file again") from error
    for path in _weight_files(folder):
        _check_content(path)
        if path.suffix == ".safetensors":
            _check_safetensors(path)
    if not (folder / "tokenizer.json").exists():
        missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).exists()]
        if missing:
            raise _Unfit(
                f"its tokenizer is missing: there is no tokenizer.json and no {' and no '.join(missing)}; copy them "
                "from the model that this one was made from"
            )
    if not any((folder / name).exists() for name in ("preprocessor_config.json", "processor_config.json")):
        raise _Unfit(
            "its feature extractor is missing: there is no preprocessor_config.json; copy it from the model that this "
            "one was made from"
        )


def _weight_files(folder: Path) -> Iterable[Path]:
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).exists():
            return [folder / name]
        if index.exists():
            parts = sorted(set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()))
            missing = [part for part in parts if not (folder / part).exists()]
            if missing:
                raise _Unfit(f"of {len(parts)} weight files {_listed(missing)} missing; get them again")
            return [folder / part for part in parts]
    raise _Unfit(f"its weights are missing: there is no {' and no '.join(_WEIGHTS)}")


def _check_content(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
    except OSError as error:
        raise _Unfit(f"{path.name} can't be read ({error.strerror})") from error
    if not head:
        raise _Unfit(f"{path.name} is empty; get the file again")
    if head == _POINTER:
        raise _Unfit(f"{path.name} is a Git LFS pointer and not the file itself; run `git lfs pull` there")


def _check_safetensors(path: Path) -> None:
    """The header's length, the header, and as many bytes as its last tensor ends at."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length:
            raise _Unfit(
                f"{path.name} is cut off or no safetensors file: {size} bytes do not hold its header"
            )
        try:
            entries = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise _Unfit(f"{path.name} is no safetensors file: its header can't be read") from error
    announced = 8 + length + max(ends, default=0)
    if size < announced:
        raise _Unfit(
            f"{path.name} is cut off: {announced} bytes are announced and {size} are there; get it again"
        )


def _check_weights(model: WhisperForConditionalGeneration, info: dict[str, Any]) -> None:
    if mismatched := sorted(info["mismatched_keys"]):
        name, stored, wanted = mismatched[0]
        raise _Unfit(
            f"{len(mismatched)} of its weights do not fit its configuration, the first is {name} with "
            f"{tuple(stored)} where {tuple(wanted)} is wanted"
        )
    missing, total = sorted(info["missing_keys"]), len(model.state_dict())
    if missing:
        raise _Unfit(
            f"{len(missing)} of {total} weights are missing in its files{_layers(missing)}: {_listed(missing)} missing"
        )
    extra = sorted(key for key in info["unexpected_keys"] if re.search(r"layers\.\d+\.", key))
    if extra:
        raise _Unfit(f"its files have weights of layers that its configuration does not have{_layers(extra)}")
    for name, weight in model.state_dict().items():
        if bad := int(weight.numel() - weight.isfinite().sum()):
            raise _Unfit(f"its weights hold NaN or infinite values, {bad} of {weight.numel()} in {name}")
        if weight.ndim > 1 and not weight.any():
            raise _Unfit(f"its weight {name} is all zeros, as in a placeholder; get the weights again")


def _layers(names: Iterable[str]) -> str:
    """`, decoder layers 4 and 5`: which of the layers the names belong to, if all of them do."""
    found = {re.search(r"(encoder|decoder)\.layers\.(\d+)\.", name) for name in names}
    if None in found:
        return ""
    layers = sorted({(match[1], int(match[2])) for match in found if match})
    return " (" + ", ".join(f"{part} layer {number}" for part, number in layers) + ")"


def _check_features(model: WhisperForConditionalGeneration, extractor: Any) -> None:
    config = model.config
    for what, has, wants in (
        ("mel bins", extractor.feature_size, config.num_mel_bins),
        ("frames", extractor.nb_max_frames, 2 * config.max_source_positions),
    ):
        if has != wants:
            raise _Unfit(
                f"its feature extractor does not fit: it makes {has} {what} and the model takes {wants}; copy "
                "preprocessor_config.json from the model that this one was made from"
            )


def _check_vocabulary(model: WhisperForConditionalGeneration, tokenizer: Any, stated: dict[str, Any]) -> None:
    """The tokenizer's ids against the rows of the embedding, and against what config.json states of them."""
    rows = model.config.vocab_size
    try:
        found = Vocabulary.of(tokenizer, rows)
    except XdnaError as error:
        raise _Unfit(str(error)) from error
    ids = set(tokenizer.get_vocab().values())
    reasons = []
    if max(ids) >= rows:
        reasons.append(f"its ids reach {max(ids)} and the model's embedding has {rows} rows")
    if rows in _OPENAI and found.end != _OPENAI[rows]:
        reasons.append(f"<|endoftext|> is {found.end} and in a vocabulary of {rows} it is {_OPENAI[rows]}")
    if found.zero is not None:
        timestamps = _TIMESTAMPS if rows in _OPENAI else model.config.max_source_positions + 1
        if rows in _OPENAI and found.zero + timestamps != rows:
            reasons.append(
                f"<|0.00|> is {found.zero} and in a vocabulary of {rows} it is {rows - timestamps}"
            )
        elif found.zero + timestamps > rows:
            reasons.append(f"{timestamps} timestamps from {found.zero} on do not fit into {rows} rows")
    known = max(max(ids) + 1, 0 if found.zero is None else found.zero + model.config.max_source_positions + 1)
    if rows - known >= _PADDING:
        reasons.append(f"it has {known} tokens and the model's embedding {rows} rows")
    for key, number, token in (
        ("decoder_start_token_id", found.start, "<|startoftranscript|>"),
        ("eos_token_id", found.end, "<|endoftext|>"),
    ):
        if stated.get(key, number) not in (number, None):
            reasons.append(f"{token} is {number} and config.json's {key} is {stated[key]}")
    if reasons:
        raise _Unfit(f"its tokenizer is another model's: {reasons[0]}")


def _listed(names: list[str]) -> str:
    """`a, b, c and 7 more are`, `a is`."""
    rest = len(names) - _SHOWN
    text = ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
    return f"{text} {'is' if len(names) == 1 else 'are'}"
