"""What a Whisper's decoder must be told, from its tokenizer alone: the ids of start, languages, tasks, timestamps.

Checkpoints carry these ids in a generation config too, but not reliably: fine-tuned and converted ones have it in
part, from another model, or not at all. The tokens' names are the same in all of them (openai/whisper,
tokenizer.py), so the names decide.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from torch_xdna.errors import XdnaError

START, END, NO_TIMESTAMPS = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"
PREVIOUS = "<|startofprev|>"
TASKS = ("transcribe", "translate")
_GPT2_END = 50_256  # end of text in the vocabulary of GPT-2, which only OpenAI's English-only models have

# Entries that would decide over prompt and length. The last one lets no window's first segment begin later than a
# second into it, which is right only where a window was chosen to begin with speech.
_DROPPED = (
    "forced_decoder_ids", "language", "task", "prompt_ids", "max_new_tokens", "min_new_tokens", "min_length",
    "max_initial_timestamp_index",
)  # fmt: skip

# What transcripts hold no single token of: symbols that annotate sounds or speakers (openai/whisper, tokenizer.py,
# `non_speech_tokens`). Quotation marks inside words stay.
_SYMBOLS = [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』']
_SYMBOLS += "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split()  # noqa: SIM905
_NOTES = "♩♪♫♬♭♮♯"  # of several tokens each, of which the first is held back


@dataclass(frozen=True)
class Vocabulary:
    """`rows`: tokens that the model's embedding knows; `languages`: code to id, empty for an English-only model;
    `zero`: the id of <|0.00|>, None for a model without timestamps; `special`: ids that are no text, timestamps
    apart; `silenced`, `blank`: ids that are never written, or not at the beginning."""

    rows: int
    start: int
    end: int
    languages: dict[str, int]
    tasks: dict[str, int]
    no_timestamps: int | None
    zero: int | None
    special: frozenset[int]
    silenced: tuple[int, ...]
    blank: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any, rows: int) -> Vocabulary:
        """`rows`: how many tokens the model's embedding knows. Raises XdnaError if a token is missing."""
        ids = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        missing = [name for name in (START, END) if name not in ids]
        if missing:
            raise XdnaError(f"its tokenizer lacks {' and '.join(missing)}, which every Whisper has")
        tasks = {task: ids[f"<|{task}|>"] for task in TASKS if f"<|{task}|>" in ids}
        languages = {
            found[1]: number
            for name, number in ids.items()
            if (found := re.fullmatch(r"<\|([a-z]{2,3})\|>", name)) and number < rows
        }
        if ids[END] == _GPT2_END or len(tasks) < len(TASKS):
            languages, tasks = {}, {}
        silent = ids.get(NO_TIMESTAMPS)
        zero = silent + 1 if silent is not None and silent + 1 < rows else None
        special = {number for name, number in ids.items() if not re.fullmatch(r"<\|\d+\.\d+\|>", name)}
        return cls(
            rows=rows,
            start=ids[START],
            end=ids[END],
            languages=languages,
            tasks=tasks,
            no_timestamps=silent,
            zero=zero,
            special=frozenset(special),
            silenced=tuple(sorted(_silenced(tokenizer, ids))),
            blank=(*_blank(tokenizer), ids[END]),
        )

    @property
    def is_multilingual(self) -> bool:
        return bool(self.languages)

    def language(self, name: str) -> str:
        """The code of a language by code or English name, any case. Raises XdnaError if the model lacks it."""
        asked = name.strip().lower()
        code = asked if asked in self.languages else TO_LANGUAGE_CODE.get(asked, asked)
        if not self.is_multilingual:
            if code == "en":
                return code
            raise XdnaError(
                f"the language '{name}' needs a multilingual model and this one knows English only: leave --language "
                "out, or take a model such as openai/whisper-base"
            )
        if code not in self.languages:
            raise XdnaError(
                f"there is no language '{name}' in this model: give a code such as en, es or zh, or a name such as "
                f"Spanish; it knows {len(self.languages)}: {', '.join(sorted(self.languages))}"
            )
        return code

    def generation_config(self, found: GenerationConfig, length: int) -> GenerationConfig:
        """The checkpoint's own choices (beams, suppressed tokens) with every id of this vocabulary and a length
        of `length` tokens; of what names a language, a task or a prompt nothing is kept."""
        config = copy.deepcopy(found)
        ids: dict[str, Any] = {
            "decoder_start_token_id": self.start,
            "bos_token_id": self.end,
            "eos_token_id": self.end,
            "pad_token_id": self.end,
            "is_multilingual": self.is_multilingual,
        }
        named = {
            "no_timestamps_token_id": self.no_timestamps,
            "lang_to_id": {f"<|{code}|>": number for code, number in self.languages.items()},
            "task_to_id": dict(self.tasks),
        }
        for name, value in named.items():  # their mere being there makes Hugging Face use them
            if value:
                ids[name] = value
            elif hasattr(config, name):
                delattr(config, name)
        settings = {"max_length": length, "return_dict_in_generate": False, "num_return_sequences": 1}
        for name, value in {**ids, **settings}.items():
            setattr(config, name, value)
        for name in _DROPPED:
            setattr(config, name, None)
        for name, default in (("suppress_tokens", self.silenced), ("begin_suppress_tokens", self.blank)):
            chosen = getattr(config, name, None)
            known = default if not isinstance(chosen, list) else [i for i in chosen if i in range(self.rows)]
            setattr(config, name, list(known) or None)
        return config


def language_name(code: str) -> str:
    """es: Spanish (es); a code without a name stands alone."""
    return f"{LANGUAGES[code].title()} ({code})" if code in LANGUAGES else code


def _silenced(tokenizer: Any, ids: dict[str, int]) -> set[int]:
    names = (
        "startoftranscript",
        "transcribe",
        "translate",
        "startoflm",
        "startofprev",
        "nospeech",
        "nocaptions",
    )
    found = {ids[f"<|{name}|>"] for name in names if f"<|{name}|>" in ids}
    found |= {tokens[0] for text in (" -", " '") if len(tokens := _tokens(tokenizer, text)) == 1}
    for symbol in [*_SYMBOLS, *_NOTES]:
        for tokens in (_tokens(tokenizer, symbol), _tokens(tokenizer, f" {symbol}")):
            if len(tokens) == 1 or (symbol in _NOTES and tokens):
                found.add(tokens[0])
    return found


def _blank(tokenizer: Any) -> Iterable[int]:
    tokens = _tokens(tokenizer, " ")
    return tokens if len(tokens) == 1 else ()


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)
