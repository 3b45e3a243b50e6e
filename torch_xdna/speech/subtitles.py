"""Writes a transcript as text, JSON, SubRip (srt), WebVTT (vtt) or tab-separated values (tsv)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Word:
    """Seconds from the beginning of the file; the text has its punctuation and no space around it."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Segment:
    """Something said from `start` to `end`, seconds from the beginning of the file; `words` if they were asked for."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()


def as_text(file: str, segments: Iterable[Segment], language: str | None = None) -> str:
    """The whole transcript on one line."""
    return " ".join(segment.text for segment in segments) + "\n"


def as_json(file: str, segments: Iterable[Segment], language: str | None = None) -> str:
    """One line: {"file", "language", "text", "segments": [{"start", "end", "text"}]}, times in seconds; a segment has
    "words" (a list of the same) where they were asked for. The language is the one that was detected (for most of the
    file), null where none was looked for."""
    segments = list(segments)
    record = {
        "file": file,
        "language": language,
        "text": " ".join(segment.text for segment in segments),
        "segments": [_record(segment) for segment in segments],
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def as_srt(file: str, segments: Iterable[Segment], language: str | None = None) -> str:
    cues = (
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n{segment.text}\n"
        for number, segment in enumerate(segments, start=1)
    )
    return "\n".join(cues)


def as_vtt(file: str, segments: Iterable[Segment], language: str | None = None) -> str:
    """With words: each but the first begins with its time, as karaoke does (W3C WebVTT, 6.4 "timestamp tags")."""
    cues = (
        f"\n{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{_cue(segment)}\n"
        for segment in segments
    )
    return "WEBVTT\n" + "".join(cues)


def as_tsv(file: str, segments: Iterable[Segment], language: str | None = None) -> str:
    """start and end in whole milliseconds, as openai/whisper writes it."""
    lines = (
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t{segment.text.replace(chr(9), ' ')}\n"
        for segment in segments
    )
    return "start\tend\ttext\n" + "".join(lines)


FORMATS: dict[str, Callable[[str, Iterable[Segment], str | None], str]] = {
    "text": as_text,
    "json": as_json,
    "srt": as_srt,
    "vtt": as_vtt,
    "tsv": as_tsv,
}


def _record(segment: Segment) -> dict[str, Any]:
    record = asdict(segment)
    if not segment.words:
        del record["words"]
    return record


def _cue(segment: Segment) -> str:
    """A time tag must lie inside its cue and after the one before it; others are left out."""
    text, said, at = "", 0, segment.start
    for number, word in enumerate(segment.words):
        begin = segment.text.find(word.text, said)
        if begin < 0:
            continue
        if number and at < word.start < segment.end:
            text += f"{_escaped(segment.text[said:begin])}<{_clock(word.start, '.')}>"
            said, at = begin, word.start
        text += _escaped(segment.text[said : begin + len(word.text)])
        said = begin + len(word.text)
    return text + _escaped(segment.text[said:])


def _clock(seconds: float, point: str) -> str:
    """hours:minutes:seconds and milliseconds, rounded once so that 59.9996 becomes the next minute."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{point}{milliseconds:03d}"


def _escaped(text: str) -> str:
    """The three characters that WebVTT cue text must not hold."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
