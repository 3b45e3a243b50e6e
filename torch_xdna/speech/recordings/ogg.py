"""Ogg pages (RFC 3533): where they end, which are missing or broken, how many samples the last one counts.

A page: OggS, version, flags (byte 5), granule position (6 to 13), stream's number (14 to 17), page's number in its
stream (18 to 21), checksum (22 to 25), number of segments (26), their lengths, their bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from torch_xdna.speech.recordings.data import Bytes, Truncated

_HEADER = 27
_LARGEST = 65_536  # a page has at most 65,307 bytes
_MAGIC = b"OggS\x00"
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_LARGEST_GAP = 100_000  # pages; a number that is further off belongs to a stream that began anew


@dataclass(frozen=True)
class Pages:
    """`end`: where the last page ends; `count`: pages that should be there; `lost`: of these, those that are missing or
    whose checksum is wrong, which FFmpeg leaves out."""

    end: int
    count: int
    lost: int


def page_end(data: Bytes, at: int) -> int:
    """Where the page at `at` ends; beyond the end if its table of segments is cut."""
    head = data.at(at, _HEADER)
    if len(head) < _HEADER:
        return data.size + 1
    table = data.at(at + _HEADER, head[26])
    return at + _HEADER + head[26] + sum(table) if len(table) == head[26] else data.size + 1


def count_pages(data: Bytes, at: int, end: int) -> Pages:
    """From `at` to `end`, or up to where something else than an Ogg page follows a whole one."""
    count, lost, last = 0, 0, at
    numbers: dict[bytes, int] = {}
    for begin, following in _whole_pages(data, at, end):
        page = data.at(begin, following - begin)
        if _checksum(page) != int.from_bytes(page[22:26], "little"):
            continue  # its number is missing then
        stream, number = page[14:18], int.from_bytes(page[18:22], "little")
        gap = number - numbers.get(stream, number - 1) - 1
        if 0 < gap < _LARGEST_GAP:
            lost += gap
            count += gap
        numbers[stream] = number
        count, last = count + 1, following
    return Pages(last, count, lost)


def vorbis_samples(data: Bytes) -> int:
    """The last page must be there whole (raises Truncated). Whether it carries the end-of-stream flag (bit 4) says
    nothing of missing bytes: recorders that were stopped and streams taken from the air have none. With the flag its
    granule position is returned for Vorbis, whose samples it counts, else 0.
    """
    begin = max(0, data.size - _LARGEST)
    last = data.at(begin, _LARGEST).rfind(_MAGIC)
    if last < 0:
        return 0
    if page_end(data, begin + last) > data.size:
        raise Truncated("its last page breaks off")
    head = data.at(begin + last, 14)
    granule = int.from_bytes(head[6:], "little", signed=True)
    is_alone = b"\x01vorbis" in data.at(0, 64) and data.at(14, 4) == data.at(begin + last + 14, 4)
    return max(0, granule) if head[5] & 4 and is_alone else 0


def _whole_pages(data: Bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each; what lies between two pages is skipped, as decoders do."""
    while at < end:
        if data.at(at, len(_MAGIC)) != _MAGIC:
            at = data.find(_MAGIC, at, end)
            if at < 0:
                return
        following = page_end(data, at)
        if following > end:
            return
        yield at, following
        at = following


def _checksum(page: bytes) -> int:
    """Polynomial 0x04C11DB7 from 0 on, over the page with its own field 0: zlib's with every byte reversed."""
    data = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    value = zlib.crc32(data, 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{value:032b}"[::-1], 2)
