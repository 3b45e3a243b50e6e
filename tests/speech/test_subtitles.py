"""The four output formats."""

from __future__ import annotations

import json

from torch_xdna.speech import subtitles
from torch_xdna.speech.subtitles import Segment, as_json, as_srt, as_text, as_vtt

SEGMENTS = [Segment(0.5, 59.9996, "turn left"), Segment(3661.25, 3662.0, "salt & <pepper>")]


def test_text_is_one_line() -> None:
    assert as_text("a.wav", SEGMENTS) == "turn left salt & <pepper>\n"
    assert as_text("a.wav", []) == "\n"


def test_json_is_one_line_with_every_segment() -> None:
    line = as_json("ä.wav", SEGMENTS)
    assert line.count("\n") == 1 and line.endswith("\n")
    record = json.loads(line)
    assert record["file"] == "ä.wav" and record["text"] == "turn left salt & <pepper>"
    assert record["segments"][1] == {"start": 3661.25, "end": 3662.0, "text": "salt & <pepper>"}


def test_srt() -> None:
    assert as_srt("a.wav", SEGMENTS) == (
        "1\n00:00:00,500 --> 00:01:00,000\nturn left\n\n2\n01:01:01,250 --> 01:01:02,000\nsalt & <pepper>\n"
    )
    assert as_srt("a.wav", []) == ""


def test_vtt_escapes_markup() -> None:
    assert as_vtt("a.wav", SEGMENTS) == (
        "WEBVTT\n\n00:00:00.500 --> 00:01:00.000\nturn left\n\n"
        "01:01:01.250 --> 01:01:02.000\nsalt &amp; &lt;pepper&gt;\n"
    )
    assert as_vtt("a.wav", []) == "WEBVTT\n"


def test_tabs_and_words() -> None:
    words = (subtitles.Word(0.5, 0.9, "一"), subtitles.Word(0.9, 1.4, "<二>"))
    segments = [subtitles.Segment(0.5, 1.5, "一<二>!", words), subtitles.Segment(2.0004, 61.0, "a\tb")]
    assert subtitles.as_tsv("f", segments) == "start\tend\ttext\n500\t1500\t一<二>!\n2000\t61000\ta b\n"
    assert "\n一<00:00:00.900>&lt;二&gt;!\n" in subtitles.as_vtt("f", segments)
    first, second = json.loads(subtitles.as_json("f", segments))["segments"]
    assert first["words"] == [
        {"start": 0.5, "end": 0.9, "text": "一"},
        {"start": 0.9, "end": 1.4, "text": "<二>"},
    ]
    assert "words" not in second
