"""From a form's fields to what is wanted of the model and how the answer is written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch_xdna.serve.refused import Refused
from torch_xdna.speech.engine import Engine, Wanted

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("segment", "word")
PROMPT_CHARACTERS = 4000  # Whisper takes 224 tokens of it, the last ones
ANY_MODEL = "whisper-1"  # what OpenAI's examples ask for
# Fields of OpenAI's interface that change nothing here; an answer says so.
WITHOUT_EFFECT = (
    "include[]",
    "chunking_strategy",
    "known_speaker_names[]",
    "known_speaker_references[]",
)


@dataclass(frozen=True)
class Form:
    """A request's fields, understood. `notes`: what of them has no effect, a sentence each."""

    asked: Wanted
    form: str = "json"
    segments: bool = True
    stream: bool = False
    notes: tuple[str, ...] = field(default=())


def openai(fields: Iterable[tuple[str, str]], engine: Engine, task: str) -> Form:
    """Fields of `/v1/audio/transcriptions` and `/translations`. Raises Refused (400, 404)."""
    fields = list(fields)
    given = dict(fields)
    check_model(given.get("model", ""), engine)
    wanted = [
        value for name, value in fields if name in ("timestamp_granularities[]", "timestamp_granularities")
    ]
    for value in wanted:
        _choice("timestamp_granularities[]", value, GRANULARITIES)
    form = _choice("response_format", given.get("response_format") or "json", FORMATS)
    words = "word" in wanted
    if wanted and form != "verbose_json":
        raise Refused(400, "timestamp_granularities[] needs response_format=verbose_json", "invalid_value")
    stream = _flag("stream", given.get("stream", ""))
    if stream and form not in ("json", "text"):
        raise Refused(
            400,
            f"stream=true sends text as it comes and has no {form}: leave one of them out",
            "invalid_value",
        )
    asked = _asked(given, engine, task, words)
    notes = tuple(f"{name} has no effect here" for name in WITHOUT_EFFECT if name in given)
    return Form(asked, form, segments=not wanted or "segment" in wanted, stream=stream, notes=notes)


def whisper_cpp(fields: Iterable[tuple[str, str]], engine: Engine) -> Form:
    """Fields of whisper.cpp's `/inference`. There a wrong language ends the server, an unknown format is json; an
    English-only model ignores language and translation, as here. Raises Refused (400)."""
    given = dict(fields)
    task = "translate" if _flag("translate", given.get("translate", "")) else "transcribe"
    notes = []
    if not engine.is_multilingual:
        if task == "translate" or given.get("language", "auto") not in ("auto", "en", ""):
            notes.append("this model knows English only, so language and translate have no effect")
        given.pop("language", None)
        task = "transcribe"
    if given.get("language") == "auto" or _flag("detect_language", given.get("detect_language", "")):
        given.pop("language", None)
    form = given.get("response_format", "json")
    form = form if form in FORMATS else "json"
    words = form == "verbose_json" and not _flag("no_timestamps", given.get("no_timestamps", ""))
    return Form(_asked(given, engine, task, words), form, notes=tuple(notes))


def check_model(name: str, engine: Engine) -> None:
    """Raises Refused (404) for a model that is not the one that is served."""
    if name not in ("", ANY_MODEL, engine.name):
        raise Refused(
            404, f"there is no such model here: ask for '{engine.name}' or '{ANY_MODEL}'", "model_not_found"
        )


def _asked(given: dict[str, str], engine: Engine, task: str, words: bool) -> Wanted:
    if task == "translate" and not engine.is_multilingual:
        raise Refused(
            400, "translating needs a multilingual model and this one knows English only", "invalid_value"
        )
    language = given.get("language") or None
    if language is not None:
        code = engine.language(language)
        if code is None:
            known = ", ".join(engine.languages)
            raise Refused(400, f"the model does not know this language: it knows {known}", "invalid_language")
        language = code if engine.is_multilingual else None
    prompt = given.get("prompt") or ""
    if len(prompt) > PROMPT_CHARACTERS:
        raise Refused(
            400, f"prompt has {len(prompt)} characters and may have {PROMPT_CHARACTERS}", "invalid_value"
        )
    if prompt and not engine.takes_prompts:
        raise Refused(
            400, "this model's tokenizer has no <|startofprev|>, so it takes no prompt", "invalid_value"
        )
    return Wanted(language, task, prompt, _temperature(given.get("temperature") or "0"), words)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise Refused(400, "temperature must be a number from 0 to 1", "invalid_value")
    return value


def _choice(name: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise Refused(400, f"{name} must be one of {', '.join(valid)}", "invalid_value")
    return value


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("", "true", "false", "1", "0", "yes", "no", "on", "off"):
        raise Refused(400, f"{name} must be true or false", "invalid_value")
    return text.lower() in ("true", "1", "yes", "on")
