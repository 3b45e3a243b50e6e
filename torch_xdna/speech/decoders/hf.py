"""Hugging Face's `generate`: one window each, so no sequential long-form loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from torch_xdna.errors import XdnaError
from torch_xdna.speech.decoders import Asked, Said
from torch_xdna.speech.languages import detect
from torch_xdna.speech.vocabulary import Vocabulary

FRAME_SECONDS = 0.02  # of the encoder; in these Hugging Face tells when a token was said


class HfDecoder:
    """The decoder of a loaded model, in its own precision."""

    name = "hf"

    def __init__(self, model: WhisperForConditionalGeneration, vocabulary: Vocabulary) -> None:
        self.model, self.vocabulary = model, vocabulary

    def languages(self, hidden: Any) -> list[dict[str, float]]:
        return detect(self.model, self.vocabulary, self._tensor(hidden))

    def generate(self, hidden: Any, asked: Asked) -> list[Said]:
        wishes: dict[str, Any] = {}
        if asked.languages is not None:
            wishes = {"language": [f"<|{code}|>" for code in asked.languages], "task": asked.task}
        if asked.previous:
            wishes["prompt_ids"] = torch.tensor(asked.previous)
        if asked.beams > 1:
            wishes["num_beams"] = asked.beams
        if asked.temperature:
            wishes |= {"do_sample": True, "temperature": asked.temperature}
        if asked.word_times:
            if not getattr(self.model.generation_config, "alignment_heads", None):
                raise XdnaError(
                    "word times need alignment_heads in the model's generation_config.json: copy them from the model "
                    "that this one was made from, or use --decoder ctranslate2 (pip install '.[fast]' in the checkout)"
                )
            wishes |= {"return_token_timestamps": True, "return_dict_in_generate": True}
        try:
            found = self.model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=self._tensor(hidden)),
                return_timestamps=self.vocabulary.zero is not None,
                force_unique_generate_call=True,
                **wishes,
            )
        except (ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise XdnaError(
                f"the decoder can't run as the model's generation_config.json asks: {reason}; take the file of the "
                "model that this one was made from, or remove it"
            ) from error
        if not asked.word_times:
            return [Said(ids) for ids in found.tolist()]
        pairs = zip(found["sequences"].tolist(), found["token_timestamps"].tolist())
        return [Said(ids, self._times(ids, starts)) for ids, starts in pairs]

    def _times(self, ids: Sequence[int], moments: Sequence[float]) -> list[tuple[float, float]]:
        """Hugging Face gives a token the moment at which attention leaves it for the next: its end."""
        zero, special = self.vocabulary.zero, self.vocabulary.special
        first = ids.index(self.vocabulary.start) if self.vocabulary.start in ids else 0
        found, at = [], 0.0
        for token, moment in list(zip(ids, moments))[first:]:
            if token not in special and (zero is None or token < zero):
                found.append((at / FRAME_SECONDS, moment / FRAME_SECONDS))
            at = moment
        return found

    def _tensor(self, hidden: Any) -> torch.Tensor:
        return torch.as_tensor(hidden).to(self.model.get_decoder().dtype)  # the encoder may have another
