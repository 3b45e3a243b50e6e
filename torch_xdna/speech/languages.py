"""Which language is spoken: from the decoder's first step, window by window, remembered per file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from torch_xdna.speech.vocabulary import Vocabulary

# How sure the model must be of another language before a file's windows change theirs. A window of noise, music or one
# word has no language, and what the model makes of it is a guess between many.
SURE = 0.8


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


@dataclass
class Heard:
    """What one file is spoken in. `seconds`: of its windows, by language, in the order of their appearance."""

    seconds: dict[str, float] = field(default_factory=dict)
    current: str | None = None
    chance: float = 0.0  # of the current language when it was taken

    def hear(self, chances: Mapping[str, float], seconds: float) -> str:
        """The language of the next window: the file's, until the model is sure of another or at least surer."""
        likeliest = max(chances, key=lambda code: chances[code])
        if self.current is None or chances[likeliest] >= min(SURE, self.chance):
            self.current, self.chance = likeliest, chances[likeliest]
        self.seconds[self.current] = self.seconds.get(self.current, 0.0) + seconds
        return self.current

    @property
    def most(self) -> str | None:
        """The language that most seconds are spoken in."""
        return max(self.seconds, key=lambda code: self.seconds[code], default=None)
