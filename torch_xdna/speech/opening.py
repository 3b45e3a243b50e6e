"""Open a model for transcription: a Whisper checkpoint or a folder of CTranslate2's, with the wanted decoder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch_xdna.encoder import Encoder
from torch_xdna.errors import XdnaError
from torch_xdna.speech import ct2_models
from torch_xdna.speech.decoders import ct2
from torch_xdna.speech.loading import load_whole
from torch_xdna.speech.transcriber import Transcriber


def load(
    name: str | Path, *, decoder: str = "hf", device: str | None = None, short_context: bool = False
) -> Transcriber:
    """A Whisper checkpoint by folder or by Hugging Face id, in fp32, or a folder in CTranslate2's format.

    decoder: hf; ctranslate2; auto takes CTranslate2's if it is installed. device: what the encoder is compiled for;
    None leaves it as it is. Raises XdnaError in one sentence.
    """
    if ct2_models.is_ct2(name):
        if decoder == "hf":
            raise XdnaError(
                f"'{name}' is in CTranslate2's format, which Hugging Face's decoder can't read: leave --decoder hf "
                "out, or give the checkpoint that it was made from"
            )
        found = ct2_models.load(name, device or "auto")
        found.short_context = short_context
        return found
    found = Transcriber(*load_whole(name), short_context=short_context)
    assert found.model is not None
    if decoder == "ctranslate2" or (decoder == "auto" and ct2.missing() is None):
        _take_ct2(found, name, needed=decoder == "ctranslate2")
    if short_context:
        found.encoder = _numpy_encoder(found.model, device or "auto")
    if device is not None:
        found.model.model.encoder.compile(backend="xdna", options={"device": device})
    return found


def _take_ct2(found: Transcriber, name: str | Path, *, needed: bool) -> None:
    """CTranslate2's decoder in place of Hugging Face's, whose weights are let go. A reason why not is told."""
    from torch_xdna.speech.decoders.conversion import converted
    from torch_xdna.speech.decoders.ct2 import Ct2Decoder

    model: Any = found.model
    try:
        folder = converted(name, model, found.processor.tokenizer)
        suppressed = model.generation_config.suppress_tokens or []
        found.decoder = Ct2Decoder(folder, found.vocabulary, found.length, suppressed)
    except XdnaError as error:
        if needed:
            raise
        warnings.warn(f"the decoder is Hugging Face's, because {error}", stacklevel=3)
        return
    model.model.decoder, model.proj_out = None, None


def _numpy_encoder(model: Any, device: str) -> Encoder:
    """The model's own weights, for windows that are shorter than its context."""
    from torch_xdna.encoder.doors import open_door
    from torch_xdna.lowering.whisper import encoder_config

    door = open_door(device)
    weights = {key: value.float().numpy() for key, value in model.model.encoder.state_dict().items()}
    return Encoder(encoder_config(model.config), model.config.max_source_positions, weights, door)
