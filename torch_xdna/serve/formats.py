"""A transcript as each interface writes it: OpenAI's five forms and its events, whisper.cpp's five."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.models.whisper.tokenization_whisper import LANGUAGES

from torch_xdna.serve.form import Form
from torch_xdna.speech.subtitles import Segment, as_srt, as_vtt

JSON, TEXT = "application/json", "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Transcript:
    """`language`: a code; `seconds`: of the recording."""

    segments: Sequence[Segment]
    language: str
    seconds: float

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)


def openai(transcript: Transcript, form: Form) -> tuple[str, str]:
    """(content, media type)."""
    return _OPENAI[form.form](transcript, form)


def whisper_cpp(transcript: Transcript, form: Form) -> tuple[str, str]:
    """(content, media type). There every segment is a line of its own that begins with a space."""
    lines = "".join(f" {segment.text}\n" for segment in transcript.segments)
    if form.form == "json":
        return json.dumps({"text": lines}, ensure_ascii=False), JSON
    if form.form == "text":
        return lines, TEXT
    if form.form == "verbose_json":
        whole = _verbose(transcript, form)
        per_segment = whole.pop("words", [])
        for segment in whole["segments"]:
            segment["words"] = [w for w in per_segment if segment["start"] <= w["start"] < segment["end"]]
        return json.dumps({**whole, "text": lines}, ensure_ascii=False), JSON
    return _OPENAI[form.form](transcript, form)


def delta(segment: Segment, is_first: bool) -> str:
    """A segment's event; the texts of all of them, put together, are the whole text."""
    text = segment.text if is_first else f" {segment.text}"
    return _event({"type": "transcript.text.delta", "delta": text})


def done(transcript: Transcript, devices: Sequence[str]) -> str:
    """The last event. Beside OpenAI's fields: the segments with their times, and what computed them."""
    return _event(
        {
            "type": "transcript.text.done",
            "text": transcript.text,
            "language": transcript.language,
            "duration": round(transcript.seconds, 3),
            "segments": [{"start": s.start, "end": s.end, "text": s.text} for s in transcript.segments],
            "device": ", ".join(devices),
        }
    )


def failed(error: dict[str, Any]) -> str:
    """What OpenAI's clients raise in the middle of a stream."""
    return f"event: error\ndata: {json.dumps(error, ensure_ascii=False)}\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"event: {content['type']}\ndata: {json.dumps(content, ensure_ascii=False)}\n\n"


def _json(transcript: Transcript, form: Form) -> tuple[str, str]:
    used = {"type": "duration", "seconds": round(transcript.seconds)}
    return json.dumps({"text": transcript.text, "usage": used}, ensure_ascii=False), JSON


def _text(transcript: Transcript, form: Form) -> tuple[str, str]:
    return transcript.text + "\n", TEXT


def _srt(transcript: Transcript, form: Form) -> tuple[str, str]:
    return as_srt("", transcript.segments), TEXT


def _vtt(transcript: Transcript, form: Form) -> tuple[str, str]:
    return as_vtt("", transcript.segments), "text/vtt; charset=utf-8"


def _verbose_json(transcript: Transcript, form: Form) -> tuple[str, str]:
    return json.dumps(_verbose(transcript, form), ensure_ascii=False), JSON


def _verbose(transcript: Transcript, form: Form) -> dict[str, Any]:
    """OpenAI's fields. `tokens`, `avg_logprob` and `no_speech_prob` are null: the decoders do not tell them."""
    whole: dict[str, Any] = {
        "task": form.asked.task,
        "language": LANGUAGES.get(transcript.language, transcript.language),
        "duration": round(transcript.seconds, 3),
        "text": transcript.text,
    }
    if form.segments:
        whole["segments"] = [_segment(number, s, form) for number, s in enumerate(transcript.segments)]
    if form.asked.words:
        words = (word for segment in transcript.segments for word in segment.words)
        whole["words"] = [{"word": w.text, "start": w.start, "end": w.end} for w in words]
    whole["usage"] = {"type": "duration", "seconds": round(transcript.seconds)}
    return whole


def _segment(number: int, segment: Segment, form: Form) -> dict[str, Any]:
    raw = segment.text.encode()
    return {
        "id": number,
        "seek": round(segment.start * 100),
        "start": segment.start,
        "end": segment.end,
        "text": f" {segment.text}",
        "tokens": None,
        "temperature": form.asked.temperature,
        "avg_logprob": None,
        "compression_ratio": round(len(raw) / len(zlib.compress(raw)), 4),
        "no_speech_prob": None,
    }


_OPENAI: dict[str, Callable[[Transcript, Form], tuple[str, str]]] = {
    "json": _json,
    "text": _text,
    "srt": _srt,
    "vtt": _vtt,
    "verbose_json": _verbose_json,
}
