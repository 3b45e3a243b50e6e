"""Which length a container announces, and whether that many bytes are there.

Layouts: ISO base media (ISO 14496-12), EBML (RFC 8794), the Xing/LAME tag as LAME writes it, ID3v2 (id3.org).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch_xdna.speech.recordings.data import Bytes, Truncated

ID3 = rb"ID3[\x02-\x04]\x00[\x00\x10-\xf0][\x00-\x7f]{4}"
# Lengths from here on are those of writers that didn't know (SoX 0x7FFFF000, arecord 0x80000000, FFmpeg
# 0xFFFFFFFF, each minus or plus a header), unless that much is there.
UNKNOWN = 0x7FFF_0000


def after_tags(data: Bytes, at: int = 0) -> int:
    """Where ID3v2 tags from `at` on end; writers put them before formats of every kind. `at` if the file ends first."""
    begin = at
    while re.match(ID3, head := data.at(at, 10)):
        at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
        at += 10 * bool(head[5] & 0x10)  # a footer
    return at if at < data.size else begin


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


LENGTHS = {"avi": _avi_length, "au": _au_length, "caf": _caf_length, "asf": _asf_length}


def check_length(data: Bytes, announced: int) -> None:
    """Longer by no more than a header is a mistake in counting."""
    if announced > data.size + 64 and not UNKNOWN <= announced < 1 << 33:
        raise Truncated(f"{announced} bytes are announced and {data.size} are there")


def check_mp3(data: Bytes, rest: int) -> None:
    """Compares with the number of bytes in the Xing/Info tag of the first frame, if the encoder wrote one;
    joined files may carry one for all of them.
    """
    begin = after_tags(data)
    frame = data.at(begin, 256)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 16 or not frame[at + 7] & 2:
        return
    field = at + 8 + 4 * (frame[at + 7] & 1)  # after the number of frames, if that is there
    announced = int.from_bytes(frame[field : field + 4], "big")
    if announced > rest:
        raise Truncated(f"{announced} bytes are announced and {rest - begin} are there")


def check_mp4(data: Bytes) -> None:
    has_index = False
    for name, at, end in mp4_boxes(data):
        has_index = has_index or name in (b"moov", b"moof")
        if end > data.size:
            what = name.decode("latin-1")
            raise Truncated(f"{end - at} bytes are announced in '{what}' and {data.size - at} are there")
    if not has_index:
        raise Truncated("the index of its samples ('moov') was never written")


def mp4_boxes(data: Bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of each, up to where something else was appended."""
    at = 0
    while at + 8 <= data.size:
        length, name = int.from_bytes(data.at(at, 4), "big"), data.at(at + 4, 4)
        if length == 1:
            length = int.from_bytes(data.at(at + 8, 8), "big")
        if length == 0:  # to the end
            length = data.size - at
        if length < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in name):
            return
        yield name, at, at + length
        at += length


def check_matroska(data: Bytes) -> None:
    end = matroska_end(data)
    if end > data.size:
        raise Truncated(f"{end} bytes are announced and {data.size} are there")


def matroska_end(data: Bytes) -> int:
    """Where the segment after the EBML header ends, 0 if unknown: a length of all ones says so (live recordings)."""
    length, at = _ebml_length(data, 4)
    if data.at(at + length, 4) != b"\x18\x53\x80\x67":
        return 0
    length, begin = _ebml_length(data, at + length + 4)
    return begin + length if length >= 0 else 0


def _ebml_length(data: Bytes, at: int) -> tuple[int, int]:
    """(length, where what it counts begins); -1 for unknown."""
    first = data.at(at, 1)
    if not first or not first[0]:
        return -1, at + 1
    width = 9 - first[0].bit_length()
    value = int.from_bytes(data.at(at, width), "big") & ((1 << 7 * width) - 1)
    return (-1 if value == (1 << 7 * width) - 1 else value), at + width
