"""The model, tokenizer, feature extractor and generation config: everything about the checkpoint but its
weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from torch_xdna.speech.vocabulary import Vocabulary

WINDOW_SECONDS = 10
CONTEXT = 500  # encoder positions, 20 ms each
POSITION_SECONDS = WINDOW_SECONDS / CONTEXT
NEW_ROWS = 0.02  # standard deviation of what a stage adds to the embeddings


@dataclass(frozen=True)
class Stage:
    """What the decoder knows beside words. `special`: its tokens in the order of their ids, which matters: Whisper's
    code takes the ids above <|notimestamps|> as the timestamps, the one below as "no speech", those after
    <|startoftranscript|> as languages. `target_positions`: decoder tokens; ten quick seconds of speech take about 45.
    """

    special: tuple[str, ...]
    target_positions: int


_REST = ("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")
LANGUAGE_CODES = [
    code for code in LANGUAGES if code != "yue"
]  # of OpenAI's checkpoints before large-v3, in their order

# The first stage learns to hear with the least that a Whisper needs; the second one goes on with all tokens of OpenAI's
# multilingual checkpoints in their order and with their 448 decoder positions, which programs take for granted.
STAGES = {
    "plain": Stage(("<|endoftext|>", "<|startoftranscript|>", *_REST), 96),
    "whisper": Stage(
        (
            "<|endoftext|>",
            "<|startoftranscript|>",
            *(f"<|{code}|>" for code in LANGUAGE_CODES),
            "<|translate|>",
            "<|transcribe|>",
            *_REST,
        ),
        448,
    ),
}


def tokenizer(words: Iterable[str], stage: Stage) -> WhisperTokenizer:
    """Byte-level BPE whose merges go on until every word of the task (with its leading space) is one
    token.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([f" {word}" for word in words], trainer)
    state = json.loads(bpe.to_str())["model"]
    result = WhisperTokenizer(
        vocab=state["vocab"],
        merges=[tuple(merge) for merge in state["merges"]],
        pad_token="<|endoftext|>",
        model_max_length=stage.target_positions,
    )
    result.add_special_tokens({"additional_special_tokens": list(stage.special[1:])})
    result.set_prefix_tokens()  # the constructor did it before these tokens existed
    steps = range(CONTEXT + 1)
    result.add_tokens(
        [AddedToken(f"<|{step * POSITION_SECONDS:.2f}|>", normalized=False, special=False) for step in steps]
    )
    return result


def processor(words: Iterable[str], stage: Stage) -> WhisperProcessor:
    features = WhisperFeatureExtractor(feature_size=80, sampling_rate=16_000, chunk_length=WINDOW_SECONDS)
    return WhisperProcessor(features, tokenizer(words, stage))


def model(
    words: WhisperTokenizer, *, width: int, encoder_layers: int, decoder_layers: int, dropout: float
) -> WhisperForConditionalGeneration:
    """Whisper with heads of 64 and random weights, its generation config included, for a tokenizer of either
    stage."""
    ids = Vocabulary.of(words, len(words))
    length = words.model_max_length
    config = WhisperConfig(
        vocab_size=len(words),
        num_mel_bins=80,
        d_model=width,
        encoder_layers=encoder_layers,
        encoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        decoder_layers=decoder_layers,
        decoder_attention_heads=width // 64,
        decoder_ffn_dim=2 * width,
        max_source_positions=CONTEXT,
        max_target_positions=length,
        decoder_start_token_id=ids.start,
        bos_token_id=ids.end,
        eos_token_id=ids.end,
        pad_token_id=ids.end,
        begin_suppress_tokens=None,
        dropout=dropout,
    )
    result = WhisperForConditionalGeneration(config)
    _initialise(result, layers=encoder_layers)
    asked: dict[str, Any] = {"begin_suppress_tokens": None}
    if ids.is_multilingual:  # as in OpenAI's files, but for what they state only for versions long gone
        asked = {
            "lang_to_id": {f"<|{code}|>": number for code, number in ids.languages.items()},
            "task_to_id": dict(ids.tasks),
            "suppress_tokens": list(ids.silenced),
            "begin_suppress_tokens": list(ids.blank),
            "prev_sot_token_id": words.convert_tokens_to_ids("<|startofprev|>"),
            # What it can do, unless asked otherwise: detecting the language would cost a second pass of the encoder.
            "language": f"<|{LANGUAGE_CODES[0]}|>",
            "task": "transcribe",
        }
    result.generation_config = GenerationConfig(
        decoder_start_token_id=ids.start,
        bos_token_id=ids.end,
        eos_token_id=ids.end,
        pad_token_id=ids.end,
        max_length=length,
        is_multilingual=ids.is_multilingual,
        no_timestamps_token_id=ids.no_timestamps,
        max_initial_timestamp_index=CONTEXT,
        return_timestamps=False,
        **asked,
    )
    return result


@torch.no_grad()
def take_over(whisper: WhisperForConditionalGeneration, words: WhisperTokenizer, folder: str | Path) -> None:
    """Gives the model the weights of the checkpoint in `folder`, whose tokenizer and number of decoder positions may
    be another stage's: rows of the embedding go by the token's name, of the positions by number; new rows stay small
    random numbers.
    """
    found = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()
    known, ids = WhisperProcessor.from_pretrained(folder).tokenizer.get_vocab(), words.get_vocab()
    shared = [(ids[name], known[name]) for name in ids.keys() & known.keys()]
    to, of = torch.tensor(sorted(shared)).T
    own = whisper.state_dict()
    for name in ("model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"):
        rows = torch.randn_like(own[name]) * NEW_ROWS
        if name.endswith("tokens.weight"):
            rows[to] = found[name][of]
        else:
            rows[: len(found[name])] = found[name]
        found[name] = rows
    found["proj_out.weight"] = found["model.decoder.embed_tokens.weight"]
    whisper.load_state_dict(found)


@torch.no_grad()
def _initialise(whisper: WhisperForConditionalGeneration, layers: int) -> None:
    """Weights for a narrow model that trains for an hour.

    The library's standard deviation of 0.02 suits wide models and long training: here the convolutions'
    output would be a tenth of the position embeddings, and the encoder would spend its time finding the sound
    under them.
    """
    for name, module in whisper.named_modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear) and name != "proj_out":
            closes_residual = name.endswith(("out_proj", "fc2"))
            scale = (2 * layers) ** -0.5 if closes_residual else 1.0
            nn.init.normal_(module.weight, std=scale * module.in_features**-0.5)
    tokens = whisper.model.decoder.embed_tokens.weight
    nn.init.normal_(tokens, std=tokens.shape[1] ** -0.5)
