"""Writes a transcript as text, JSON, SubRip (srt) or WebVTT (vtt)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Segment:
    """Something said from `start` to `end`, seconds from the beginning of the file."""

    start: float
    end: float
    text: str


def as_text(file: str, segments: Iterable[Segment], language: str | None = None) -> str:
    """The whole transcript on one line."""
    return " ".join(segment.text for segment in segments) + "\n"


def as_json(file: str, segments: Iterable[Segment], language: str | None = None) -> str:
    """One line: {"file", "language", "text", "segments": [{"start", "end", "text"}]}, times in seconds. The language
    is the one that was detected (for most of the file), null where none was looked for."""
    segments = list(segments)
    record = {
        "file": file,
        "language": language,
        "text": " ".join(segment.text for segment in segments),
        "segments": [asdict(segment) for segment in segments],
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def as_srt(file: str, segments: Iterable[Segment], language: str | None = None) -> str:
    cues = (
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n{segment.text}\n"
        for number, segment in enumerate(segments, start=1)
    )
    return "\n".join(cues)


def as_vtt(file: str, segments: Iterable[Segment], language: str | None = None) -> str:
    cues = (
        f"\n{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{_escaped(segment.text)}\n"
        for segment in segments
    )
    return "WEBVTT\n" + "".join(cues)


FORMATS: dict[str, Callable[[str, Iterable[Segment], str | None], str]] = {
    "text": as_text,
    "json": as_json,
    "srt": as_srt,
    "vtt": as_vtt,
}


def _clock(seconds: float, point: str) -> str:
    """hours:minutes:seconds and milliseconds, rounded once so that 59.9996 becomes the next minute."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{point}{milliseconds:03d}"


def _escaped(text: str) -> str:
    """The three characters that WebVTT cue text must not hold."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
