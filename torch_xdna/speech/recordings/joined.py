"""Where joined recordings begin: `cat a.flac b.flac`, chained Ogg, a talk's parts of different kinds in one file.

Decoders stop at the second one, skip the rest, take it for samples, or go on with the first one's rate. So a file is
cut where another recording begins: one of the same kind anywhere, one of another kind where the container says that it
ends, or anywhere in streams of frames, which have no end of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch_xdna.speech.recordings import ogg
from torch_xdna.speech.recordings.containers import ID3, LENGTHS, after_tags, matroska_end, mp4_boxes
from torch_xdna.speech.recordings.data import Bytes
from torch_xdna.speech.recordings.frames import are_frames

# What each kind begins with. Long enough not to come up in coded sound by chance: at least 7 bytes are determined.
BEGINS = {
    "wave": rb"(?:RIFF|RIFX|RF64|BW64)[\x00-\xff]{4}WAVE",
    "aiff": rb"FORM[\x00-\xff]{4}AIF[FC]",
    "avi": rb"RIFF[\x00-\xff]{4}AVI LIST",
    "flac": rb"fLaC[\x00\x80]\x00\x00\x22",
    "ogg": rb"OggS\x00[\x02\x06]\x00{8}",
    "mp4": rb"\x00\x00[\x00-\xff]{2}ftyp[ -~]{4}",
    "matroska": rb"\x1a\x45\xdf\xa3[\x00-\xff]{0,64}?\x42\x82[\x00-\xff](?:matroska|webm)",
    "caf": rb"caff\x00\x01\x00\x00",
    "au": rb"\.snd\x00[\x00-\xff]{7}\x00{3}[\x01-\x1b]\x00",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "amr": rb"#!AMR(?:-WB)?\n",
    "mp3": ID3,
}
# Bytes of those patterns that are fixed, and where they stand: found much faster than the pattern.
_ANCHORS = {
    "wave": (b"WAVE", 8),
    "aiff": (b"AIF", 8),
    "avi": (b"AVI LIST", 8),
    "flac": (b"fLaC", 0),
    "ogg": (b"OggS\x00", 0),
    "mp4": (b"ftyp", 4),
    "matroska": (b"\x1a\x45\xdf\xa3", 0),
    "caf": (b"caff\x00\x01\x00\x00", 0),
    "au": (b".snd\x00", 0),
    "asf": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0),
    "amr": (b"#!AMR", 0),
    "mp3": (b"ID3", 0),
}
_STREAMS = ("flac", "mp3", "amr")  # of frames; "mp3" stands for all kinds of MPEG audio, ADTS and AC-3 too
_SYNC = rb"\xff[\xe0-\xff]"  # of a frame of MPEG audio or ADTS
_LONGEST = 128  # no pattern matches more bytes
_CHUNK = 1 << 20
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")


def joined(data: Bytes) -> list[tuple[int, str]]:
    """Begin and kind of each, in order; nothing if the first is of no kind that is known."""
    first = after_tags(data)
    kind = _kind(data.at(first, _LONGEST))
    if not kind and (first or re.match(_SYNC, data.at(0, 2))):
        kind = "mp3"
    found = [(0 if kind == "mp3" else first, kind)] if kind else []
    while found and (following := _next(data, *found[-1])):
        found.append(following)
    return found


def _next(data: Bytes, at: int, kind: str) -> tuple[int, str] | None:
    same = next(_again(data, at, kind), data.size)
    if other := _other(data, at, kind, same):
        return other
    return (same, kind) if same < data.size else None


def _kind(head: bytes) -> str:
    return next((kind for kind, pattern in BEGINS.items() if re.match(pattern, head)), "")


def _again(data: Bytes, at: int, kind: str) -> Iterator[int]:
    """Where the same kind begins after `at`."""
    pattern, last = re.compile(BEGINS[kind]), at
    for base in range(at, data.size, _CHUNK):
        block = data.at(base, _CHUNK + _LONGEST)
        for match in pattern.finditer(block):
            found = base + match.start()
            # Ogg: several streams side by side (video and sound) begin with one page each, back to back.
            beside = kind == "ogg" and ogg.page_end(data, last) == found
            if found > last and match.start() < _CHUNK:
                if not beside and (kind != "mp3" or found > after_tags(data, at)):
                    yield found
                last = found


def _other(data: Bytes, at: int, kind: str, end: int) -> tuple[int, str] | None:
    """The first recording of another kind that begins in (at, end)."""
    if kind in _STREAMS:
        return min(
            filter(None, (_anywhere(data, at + 1, other, end) for other in BEGINS if other != kind)),
            default=None,
        )
    for place in _ends(data, at, kind, end):
        if at < place < end:
            other = _kind(data.at(place, _LONGEST))
            if (other and other != kind and other != "mp3") or are_frames(data, after_tags(data, place)):
                return place, other or "mp3"
    return None


def _anywhere(data: Bytes, begin: int, kind: str, end: int) -> tuple[int, str] | None:
    anchor, before = _ANCHORS[kind]
    while (found := data.find(anchor, begin, end)) >= 0:
        at = found - before
        if re.match(BEGINS[kind], data.at(at, _LONGEST)) and (
            kind != "mp3" or are_frames(data, after_tags(data, at))
        ):
            return at, kind
        begin = found + 1
    return None


def _ends(data: Bytes, at: int, kind: str, end: int) -> Iterator[int]:
    """Where a recording that begins at `at` may end by what it says itself."""
    own = data.part(at, data.size)
    if kind in ("wave", "aiff"):
        order = "big" if kind == "aiff" or own.at(0, 4) == b"RIFX" else "little"
        length = int.from_bytes(own.at(4, 4), order)  # type: ignore[arg-type]
        if own.at(0, 4) in (b"RF64", b"BW64") and own.at(12, 4) == b"ds64":
            length = int.from_bytes(own.at(20, 8), "little")
        yield from (at + 8 + length, at + 8 + length + length % 2)
    elif kind == "ogg":
        yield ogg.count_pages(data, at, end).end
    elif kind == "mp4":
        yield from (at + box for _, _, box in mp4_boxes(own))
    elif kind == "matroska":
        yield at + matroska_end(own)
    elif kind == "caf":
        place = 8
        while place + 12 <= own.size:
            place += 12 + max(0, int.from_bytes(own.at(place + 4, 8), "big", signed=True))
            yield at + place
    else:
        yield at + LENGTHS[kind](own)
