"""The model, tokenizer, feature extractor and generation config: everything about the checkpoint but its
weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

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

WINDOW_SECONDS = 10
CONTEXT = 500  # encoder positions, 20 ms each
POSITION_SECONDS = WINDOW_SECONDS / CONTEXT
TARGET_POSITIONS = 96  # decoder tokens; ten quick seconds of speech take about 45

# Order matters: Whisper's code takes the ids above <|notimestamps|> as the timestamps and the one below as
# "no speech".
SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]


def tokenizer(words: Iterable[str]) -> WhisperTokenizer:
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
        model_max_length=TARGET_POSITIONS,
    )
    result.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    result.set_prefix_tokens()  # the constructor did it before these tokens existed
    steps = range(CONTEXT + 1)
    result.add_tokens(
        [AddedToken(f"<|{step * POSITION_SECONDS:.2f}|>", normalized=False, special=False) for step in steps]
    )
    return result


def processor(words: Iterable[str]) -> WhisperProcessor:
    features = WhisperFeatureExtractor(feature_size=80, sampling_rate=16_000, chunk_length=WINDOW_SECONDS)
    return WhisperProcessor(features, tokenizer(words))


def model(words: WhisperTokenizer, *, width: int, encoder_layers: int, decoder_layers: int, dropout: float):
    """Whisper with heads of 64 and random weights, its generation config included."""
    ids = words.get_vocab()
    start, end, silent = ids["<|startoftranscript|>"], ids["<|endoftext|>"], ids["<|notimestamps|>"]
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
        max_target_positions=TARGET_POSITIONS,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        begin_suppress_tokens=None,
        dropout=dropout,
    )
    result = WhisperForConditionalGeneration(config)
    _initialise(result, layers=encoder_layers)
    result.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        max_length=TARGET_POSITIONS,
        is_multilingual=False,
        no_timestamps_token_id=silent,
        max_initial_timestamp_index=CONTEXT,
        return_timestamps=False,
        begin_suppress_tokens=None,
    )
    return result


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
