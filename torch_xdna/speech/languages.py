"""Which language is spoken: from the decoder's first step, window by window, remembered per file."""

from __future__ import annotations

import torch
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from torch_xdna.speech.heard import Heard
from torch_xdna.speech.vocabulary import Vocabulary

__all__ = ["Heard", "detect"]


def detect(
    model: WhisperForConditionalGeneration, vocabulary: Vocabulary, hidden: torch.Tensor
) -> list[dict[str, float]]:
    """How probable each language is, for every window; `hidden`: the encoder's result (windows, context, width).

    The model's first token after the start is a language; this is OpenAI's `detect_language`.
    """
    start = torch.full((len(hidden), 1), vocabulary.start, dtype=torch.long, device=hidden.device)
    logits = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden), decoder_input_ids=start, use_cache=False
    ).logits[:, -1]
    codes = list(vocabulary.languages)
    chances = logits[:, [vocabulary.languages[code] for code in codes]].float().softmax(-1)
    return [dict(zip(codes, row)) for row in chances.tolist()]
