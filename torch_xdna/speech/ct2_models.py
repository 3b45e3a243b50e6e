"""A Whisper in CTranslate2's format as a Transcriber: encoder on our devices, decoder on CTranslate2, no checkpoint of
Hugging Face's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_xdna.encoder.doors import open_door
from torch_xdna.encoder.encoder import Encoder
from torch_xdna.encoder.weights import Ct2Weights
from torch_xdna.errors import XdnaError
from torch_xdna.speech.decoders.ct2 import Ct2Decoder
from torch_xdna.speech.transcriber import Transcriber
from torch_xdna.speech.vocabulary import END

LENGTH = 448  # tokens, of every Whisper of OpenAI's


@dataclass(frozen=True)
class Processor:
    """What a folder says of features and tokens, as Hugging Face's WhisperProcessor holds them."""

    feature_extractor: Any
    tokenizer: Any


def is_ct2(name: str | Path) -> bool:
    """Whether it is a folder in CTranslate2's format and not (also) one of Hugging Face's."""
    folder = Path(name)
    theirs = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    return (folder / "model.bin").is_file() and not any((folder / file).exists() for file in theirs)


def load(folder: str | Path, device: str = "auto") -> Transcriber:
    """Raises XdnaError, one sentence."""
    folder = Path(folder)
    door = open_door(device)
    weights = Ct2Weights.read(folder)
    encoder = Encoder(weights.config, weights.context, weights, door)
    processor = Processor(_features(folder, weights.config.mel), _tokenizer(folder))
    rows = len(weights.variables["decoder/embeddings/weight"])
    transcriber = Transcriber(None, processor, encoder=encoder, rows=rows)
    transcriber.decoder = Ct2Decoder(folder, transcriber.vocabulary, LENGTH)
    encoder.prepare()
    return transcriber


def _features(folder: Path, mel: int) -> Any:
    from transformers import WhisperFeatureExtractor

    stated = folder / "preprocessor_config.json"
    try:
        settings = json.loads(stated.read_text(encoding="utf-8")) if stated.exists() else {}
    except ValueError as error:
        raise XdnaError(f"{stated} is not valid JSON ({error}); get the file again") from error
    known = ("sampling_rate", "hop_length", "chunk_length", "n_fft", "padding_value")
    return WhisperFeatureExtractor(mel, **{key: settings[key] for key in known if key in settings})


def _tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise XdnaError(
            f"{folder} has no tokenizer.json; copy it from the model that this one was converted from"
        )
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token=END)
    except Exception as error:  # the tokenizers package raises bare Exceptions
        raise XdnaError(f"{path} can't be read as a tokenizer: {error}; get the file again") from error
