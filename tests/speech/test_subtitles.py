"""The four output formats."""

from __future__ import annotations

import json

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
