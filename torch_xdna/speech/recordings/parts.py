"""The streams of a recording, one after another, and whether the bytes that it announces are there.

What announces its own length wrongly (recorders that died, writers into pipes, edited files) is read to its end; a
recording is called truncated only if its container announces bytes that are missing.

Layouts: RIFF/WAVE (Microsoft MCI 1991), AIFF (Apple 1989), FLAC (RFC 9639).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from torch_xdna.speech.recordings import ogg
from torch_xdna.speech.recordings.containers import (
    LENGTHS,
    UNKNOWN,
    check_length,
    check_matroska,
    check_mp3,
    check_mp4,
)
from torch_xdna.speech.recordings.data import Bytes, Truncated
from torch_xdna.speech.recordings.joined import TAGS, joined

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Part:
    """One of the joined streams.

    `seconds`: what its header announces, where that can be checked and relied on, or 0; `frames`: likewise for Ogg
    Vorbis, to cut what its last packet holds beyond it; `lost`: what is known to be missing inside; `is_bare`: only
    the decoder can tell whether it is sound.
    """

    data: Bytes
    kind: str
    seconds: float = 0.0
    frames: int = 0
    lost: str = ""

    @property
    def is_bare(self) -> bool:
        return self.kind == "bare"


def parts(file: BinaryIO, size: int) -> list[Part]:
    """The joined streams of a file. Raises Truncated."""
    whole = Bytes(file, 0, size)
    begins = joined(whole)
    if not begins:
        is_known = whole.at(0, 4) in (b"RIFF", b"fLaC", b"OggS")  # begins well, goes on badly
        return [Part(whole, "broken" if is_known else "bare")]
    ends = [*(begin for begin, _ in begins[1:]), size]
    is_same = len({kind for _, kind in begins}) == 1
    return [
        _part(file, kind, begin, end, size if is_same else end) for (begin, kind), end in zip(begins, ends)
    ]


def _part(file: BinaryIO, kind: str, begin: int, end: int, size: int) -> Part:
    data = Bytes(file, begin, end)
    if kind in ("wave", "aiff"):
        return Part(_chunks(file, data, kind, begin), kind)
    if kind == "flac":
        # STREAMINFO after 8 bytes: 20 bits of rate from bit 80 on, 36 of sample count from 108 on (0: unknown)
        rate = int.from_bytes(data.at(8 + 10, 3), "big") >> 4
        return Part(data, kind, (int.from_bytes(data.at(8 + 13, 5), "big") & 0xF_FFFF_FFFF) / max(rate, 1))
    if kind == "ogg":
        pages = ogg.count_pages(data, 0, data.size)
        lost = f"{pages.lost} of {pages.count} pages" if pages.lost else ""
        return Part(data, kind, frames=0 if lost else ogg.vorbis_samples(data), lost=lost)
    if kind in LENGTHS:
        check_length(data, LENGTHS[kind](data))
    elif kind == "mp3":
        check_mp3(data, size - begin)
    elif kind == "mp4":
        check_mp4(data)
    elif kind == "matroska":
        check_matroska(data)
    return Part(data, kind)


# WAVE and AIFF: chunks of a name, a length and as many bytes


def _chunks(file: BinaryIO, data: Bytes, kind: str, begin: int) -> Bytes:
    """The same with a length that is true, ending where the samples end."""
    order = "big" if kind == "aiff" or data.at(0, 4) == b"RIFX" else "little"
    samples = b"SSND" if kind == "aiff" else b"data"
    is_long = data.at(0, 4) in (b"RF64", b"BW64")
    whole = 8 + int.from_bytes(data.at(4, 4), order)  # type: ignore[arg-type]
    at, long_length = 12, 0
    while at + 8 <= data.size:
        name, raw = data.at(at, 4), data.at(at + 4, 4)
        length = int.from_bytes(raw, order)  # type: ignore[arg-type]
        if name == b"ds64":
            long_length = int.from_bytes(data.at(at + 16, 8), "little")
        if name == samples:
            if is_long and length == 0xFFFF_FFFF:
                length = long_length
            there = _length(data, at + 8, length, whole, is_long, order)
            if there == 0:
                return Bytes(file, begin, begin)
            prefix = data.at(0, at + 4)
            prefix = (b"RIFF" if is_long else prefix[:4]) + prefix[4:]
            prefix += min(there, 0xFFFF_FFFF).to_bytes(4, order)  # type: ignore[arg-type]
            return Bytes(file, begin + at + 8, begin + at + 8 + there, prefix)
        at += 8 + length + length % 2
    raise Truncated("it ends before its samples begin")


def _length(data: Bytes, at: int, length: int, whole: int, is_long: bool, order: str) -> int:
    """Bytes of samples from `at` on, if the chunk says `length` and the file's header says it has `whole` bytes."""
    there = data.size - at
    if length > there:
        # Some writers count the header in, so a length that is no more than the file's is no loss.
        if length > data.size and whole > data.size and (is_long or length < UNKNOWN):
            raise Truncated(f"{length} bytes of samples are announced and {there} are there")
        return there
    end = at + length + length % 2
    if _are_chunks(data, end, order) or data.at(end, 16).startswith(TAGS) or not any(data.at(end, _CHUNK)):
        return length
    return there


def _are_chunks(data: Bytes, at: int, order: str) -> bool:
    while at + 8 <= data.size:
        name, length = data.at(at, 4), int.from_bytes(data.at(at + 4, 4), order)  # type: ignore[arg-type]
        if not all(32 <= byte < 127 for byte in name):
            return False
        at += 8 + length + length % 2
    return at <= data.size + 1
