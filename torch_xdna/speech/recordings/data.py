"""A part of a file as a file of its own."""

from __future__ import annotations

import io
from typing import BinaryIO

_CHUNK = 1 << 20


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

    def part(self, begin: int, end: int) -> Bytes:
        """The bytes [begin, end) of it; it must have no prefix."""
        assert not self._prefix
        return Bytes(self._file, self._begin + begin, self._begin + end)

    def find(self, wanted: bytes, begin: int, end: int) -> int:
        """Where `wanted` begins for the first time in [begin, end), -1 if nowhere."""
        while begin < end:
            found = self.at(begin, min(_CHUNK + len(wanted) - 1, end - begin)).find(wanted)
            if found >= 0:
                return begin + found
            begin += _CHUNK
        return -1
