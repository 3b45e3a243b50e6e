"""The streams of a recording, one after another, and whether the bytes that it announces are there.

Joined recordings (`cat a.flac b.flac`, chained Ogg) are cut where the next one begins, since decoders stop there,
skip the rest or go on with the first one's rate. What announces its own length wrongly (recorders that died,
writers into pipes, edited files) is read to its end; a recording is called truncated only if its container
announces bytes that are missing.

Layouts: RIFF/WAVE (Microsoft MCI 1991), AIFF (Apple 1989), Ogg (RFC 3533), FLAC (RFC 9639), ISO base media
(ISO 14496-12), EBML (RFC 8794), ID3v2 (id3.org), the Xing/LAME tag as LAME writes it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

# What each kind begins with, at the begin and again where the next of several joined ones begins. Long enough not
# to come up in coded sound by chance (at least 7 bytes that are determined).
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
    "mp3": rb"ID3[\x02-\x04]\x00[\x00\x10-\xf0][\x00-\x7f]{4}",
}
_SYNC = rb"\xff[\xe0-\xff]"  # of a frame of MPEG audio or ADTS
_LONGEST = 128  # no pattern matches more bytes
_CHUNK = 1 << 20
# Lengths from here on are those of writers that didn't know (SoX 0x7FFFF000, arecord 0x80000000, FFmpeg
# 0xFFFFFFFF, each minus or plus a header), unless that much is there.
_UNKNOWN = 0x7FFF_0000
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")


class Truncated(Exception):
    """Bytes that the container announces are missing; the argument says which."""


class Bytes:
    """A seekable view of `prefix` followed by the bytes [begin, end) of a file."""

    def __init__(self, file: BinaryIO, begin: int, end: int, prefix: bytes = b""):
        self._file, self._begin, self._prefix, self._at = file, begin, prefix, 0
        self.size = len(prefix) + end - begin

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, count: int = -1) -> bytes:
        rest = max(0, self.size - self._at)
        count = rest if count < 0 else min(count, rest)
        found = self._prefix[self._at : self._at + count]
        if len(found) < count:
            self._file.seek(self._begin + self._at + len(found) - len(self._prefix))
            found += self._file.read(count - len(found))
        self._at += len(found)
        return found

    def at(self, offset: int, count: int) -> bytes:
        self.seek(offset)
        return self.read(count)


@dataclass(frozen=True)
class Part:
    """One of the joined streams.

    `seconds`: what its header announces, where that can be checked and relied on, or 0; `frames`: likewise for Ogg
    Vorbis, to cut what its last packet holds beyond it; `is_bare`: only the decoder can tell whether it is sound.
    """

    data: Bytes
    kind: str
    seconds: float = 0.0
    frames: int = 0

    @property
    def is_bare(self) -> bool:
        return self.kind == "bare"


def parts(file: BinaryIO, size: int) -> list[Part]:
    """The joined streams of a file. Raises Truncated."""
    whole = Bytes(file, 0, size)
    first = _after_tags(whole)
    kind = _kind(whole.at(first, _LONGEST))
    if kind == "bare" and (first or re.match(_SYNC, whole.at(0, 2))):
        kind = "mp3"
    if kind == "bare":
        is_known = whole.at(0, 4) in (b"RIFF", b"fLaC", b"OggS")  # begins well, goes on badly
        return [Part(whole, "broken" if is_known else kind)]
    begins = [0 if kind == "mp3" else first, *(at for at in _begins(whole, kind) if at > first)]
    found = []
    for begin, end in zip(begins, [*begins[1:], size]):
        found.append(_part(file, kind, begin, end, size))
    return found


def _part(file: BinaryIO, kind: str, begin: int, end: int, size: int) -> Part:
    data = Bytes(file, begin, end)
    if kind in ("wave", "aiff"):
        return Part(_chunks(file, data, kind, begin), kind)
    if kind == "flac":
        # STREAMINFO after 8 bytes: 20 bits of rate from bit 80 on, 36 of sample count from 108 on (0: unknown)
        rate = int.from_bytes(data.at(8 + 10, 3), "big") >> 4
        return Part(data, kind, (int.from_bytes(data.at(8 + 13, 5), "big") & 0xF_FFFF_FFFF) / max(rate, 1))
    if kind == "ogg":
        return Part(data, kind, frames=_ogg_frames(data))
    if kind in ("avi", "au", "caf", "asf"):
        _check_length(data, _LENGTHS[kind](data))
    elif kind == "mp3":
        _check_mp3(data, size - begin)
    elif kind == "mp4":
        _check_mp4(data)
    elif kind == "matroska":
        _check_matroska(data)
    return Part(data, kind)


def _kind(head: bytes) -> str:
    for kind, pattern in BEGINS.items():
        if re.match(pattern, head):
            return kind
    return "bare"


def _after_tags(data: Bytes) -> int:
    """Where ID3v2 tags in front of the sound end; writers put them before formats of every kind."""
    at = 0
    while re.match(BEGINS["mp3"], head := data.at(at, 10)):
        at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
        at += 10 * bool(head[5] & 0x10)  # a footer
    return at if at < data.size else 0


def _begins(data: Bytes, kind: str) -> Iterator[int]:
    pattern, last = re.compile(BEGINS[kind]), -1
    for base in range(0, data.size, _CHUNK):
        block = data.at(base, _CHUNK + _LONGEST)
        for match in pattern.finditer(block):
            at = base + match.start()
            # Ogg: several streams side by side (video and sound) begin with one page each, back to back.
            beside = kind == "ogg" and last >= 0 and _ogg_page(data, last) == at
            if at > last and match.start() < _CHUNK:
                if not beside:
                    yield at
                last = at


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
        if length > data.size and whole > data.size and (is_long or length < _UNKNOWN):
            raise Truncated(f"{length} bytes of samples are announced and {there} are there")
        return there
    end = at + length + length % 2
    if _are_chunks(data, end, order) or data.at(end, 16).startswith(_TAGS) or not any(data.at(end, _CHUNK)):
        return length
    return there


def _are_chunks(data: Bytes, at: int, order: str) -> bool:
    while at + 8 <= data.size:
        name, length = data.at(at, 4), int.from_bytes(data.at(at + 4, 4), order)  # type: ignore[arg-type]
        if not all(32 <= byte < 127 for byte in name):
            return False
        at += 8 + length + length % 2
    return at <= data.size + 1


# What the other containers announce


def _ogg_page(data: Bytes, at: int) -> int:
    """Where the page at `at` ends; beyond the end if its table of segments is cut."""
    head = data.at(at, 27)
    if len(head) < 27:
        return data.size + 1
    table = data.at(at + 27, head[26])
    return at + 27 + head[26] + sum(table) if len(table) == head[26] else data.size + 1


def _ogg_frames(data: Bytes) -> int:
    """The last page must be there whole. Whether it carries the end-of-stream flag (bit 4 of byte 5) says nothing
    of missing bytes: recorders that were stopped and streams taken from the air have none. With the flag its
    granule position (bytes 6 to 13) is returned for Vorbis, whose samples it counts, else 0.
    """
    begin = max(0, data.size - 65_536)  # a page has at most 65,307 bytes
    last = data.at(begin, 65_536).rfind(b"OggS\x00")
    if last < 0:
        return 0
    if _ogg_page(data, begin + last) > data.size:
        raise Truncated("its last page breaks off")
    head = data.at(begin + last, 14)
    granule = int.from_bytes(head[6:], "little", signed=True)
    is_alone = b"\x01vorbis" in data.at(0, 64) and data.at(14, 4) == data.at(begin + last + 14, 4)
    return max(0, granule) if head[5] & 4 and is_alone else 0


def _avi_length(data: Bytes) -> int:
    return 8 + int.from_bytes(data.at(4, 4), "little")


def _au_length(data: Bytes) -> int:
    return int.from_bytes(data.at(4, 4), "big") + int.from_bytes(data.at(8, 4), "big")


def _caf_length(data: Bytes) -> int:
    """Where its last chunk ends; the samples' may say -1, for unknown."""
    at = 8
    while at + 12 <= data.size and (length := int.from_bytes(data.at(at + 4, 8), "big", signed=True)) >= 0:
        at += 12 + length
    return at


def _asf_length(data: Bytes) -> int:
    """From the file properties, unless their flag says that it was broadcast."""
    at = data.at(0, 1 << 16).find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    is_known = at >= 0 and data.at(at + 88, 1) != b"\x01"
    return int.from_bytes(data.at(at + 40, 8), "little") if is_known else 0


_LENGTHS = {"avi": _avi_length, "au": _au_length, "caf": _caf_length, "asf": _asf_length}


def _check_length(data: Bytes, announced: int) -> None:
    """Longer by no more than a header is a mistake in counting."""
    if announced > data.size + 64 and not _UNKNOWN <= announced < 1 << 33:
        raise Truncated(f"{announced} bytes are announced and {data.size} are there")


def _check_mp3(data: Bytes, rest: int) -> None:
    """Compares with the number of bytes in the Xing/Info tag of the first frame, if the encoder wrote one;
    joined files may carry one for all of them.
    """
    begin = _after_tags(data)
    frame = data.at(begin, 256)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 16 or not frame[at + 7] & 2:
        return
    field = at + 8 + 4 * (frame[at + 7] & 1)  # after the number of frames, if that is there
    announced = int.from_bytes(frame[field : field + 4], "big")
    if announced > rest:
        raise Truncated(f"{announced} bytes are announced and {rest - begin} are there")


def _check_mp4(data: Bytes) -> None:
    at, has_index = 0, False
    while at + 8 <= data.size:
        length, name = int.from_bytes(data.at(at, 4), "big"), data.at(at + 4, 4)
        if length == 1:
            length = int.from_bytes(data.at(at + 8, 8), "big")
        has_index = has_index or name in (b"moov", b"moof")
        if length == 0:  # to the end
            break
        if length < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in name):
            break  # something else was appended
        if at + length > data.size:
            what = name.decode("latin-1")
            raise Truncated(f"{length} bytes are announced in '{what}' and {data.size - at} are there")
        at += length
    if not has_index:
        raise Truncated("the index of its samples ('moov') was never written")


def _check_matroska(data: Bytes) -> None:
    """The segment after the EBML header; a length of all ones says unknown (live recordings)."""
    length, at = _ebml_length(data, 4)
    if data.at(at + length, 4) != b"\x18\x53\x80\x67":
        return
    length, begin = _ebml_length(data, at + length + 4)
    if length >= 0 and begin + length > data.size:
        raise Truncated(f"{length} bytes are announced and {data.size - begin} are there")


def _ebml_length(data: Bytes, at: int) -> tuple[int, int]:
    """(length, where what it counts begins); -1 for unknown."""
    first = data.at(at, 1)
    if not first or not first[0]:
        return -1, at + 1
    width = 9 - first[0].bit_length()
    value = int.from_bytes(data.at(at, width), "big") & ((1 << 7 * width) - 1)
    return (-1 if value == (1 << 7 * width) - 1 else value), at + width
