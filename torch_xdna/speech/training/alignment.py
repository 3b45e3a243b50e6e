"""Which of the decoder's cross-attention heads follow the words: `alignment_heads` of the generation config.

Word timestamps (Hugging Face's, faster-whisper's) come from those heads alone, by dynamic time warping. OpenAI found
the heads of its models in the same way: by how well the attention of a head, made into a path, agrees with known times.
Here espeak-ng tells when each word begins.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from torch_xdna.speech.training.corpus import Corpus
from torch_xdna.speech.training.espeak import RATE
from torch_xdna.speech.training.prompts import SPOKEN
from torch_xdna.speech.training.recipe import POSITION_SECONDS

NEARLY_AS_GOOD = 1.25  # heads with at most so many times the best one's error are averaged with it


@torch.inference_mode()
def alignment_heads(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, corpus: Corpus
) -> tuple[list[list[int]], float]:
    """[layer, head] of those that follow the words, and the best one's mean error over the corpus in seconds."""
    errors: dict[tuple[int, int], list[float]] = {}
    for index in range(len(corpus)):
        known = np.isfinite(corpus.word_starts(index))
        for head, times in _begins(model, processor, corpus, index).items():
            wrong = np.abs(times - corpus.word_starts(index))[known]
            errors.setdefault(head, []).extend(wrong.tolist())
    means = {head: float(np.mean(found)) for head, found in errors.items()}
    best = min(means.values())
    return [list(head) for head in sorted(means) if means[head] <= NEARLY_AS_GOOD * best], best


def _begins(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, corpus: Corpus, index: int
) -> dict[tuple[int, int], np.ndarray]:
    """For every head, when each word of the clip begins (seconds); the text is given to the decoder."""
    samples, tokenizer = corpus.clip(index), processor.tokenizer
    features = processor.feature_extractor(samples, sampling_rate=RATE, return_tensors="pt").input_features
    names = ["<|startoftranscript|>", f"<|{SPOKEN}|>", "<|transcribe|>", "<|notimestamps|>"]
    prompt = tokenizer.convert_tokens_to_ids(names)
    pieces = [
        tokenizer(f" {word}", add_special_tokens=False).input_ids for word in corpus.texts[index].split()
    ]
    words = [number for piece in pieces for number in piece]
    # Attention is computed out of sight by the fused kernels; the plain one gives it out.
    model.set_attn_implementation("eager")
    ids = torch.tensor([[*prompt, *words, tokenizer.eos_token_id]])
    found = model(features, decoder_input_ids=ids, output_attentions=True).cross_attentions
    positions = int(len(samples) / RATE / POSITION_SECONDS)
    firsts = np.cumsum([0, *map(len, pieces)])[:-1]
    times = {}
    for layer, weights in enumerate(found):
        for head in range(weights.shape[1]):
            # As Hugging Face does: the weights with which a token is predicted, standardised over the tokens.
            rows = weights[0, head, :, :positions]
            rows = (rows - rows.mean(0)) / rows.std(0, unbiased=False)
            rows = _median_filter(rows[None, None], model.config.median_filter_width)[
                0, 0, len(prompt) - 1 : -1
            ]
            tokens, frames = _dynamic_time_warping(-rows.double().numpy())
            begins = [frames[np.argmax(tokens == first)] for first in firsts]
            times[layer, head] = np.array(begins) * POSITION_SECONDS
    return times
