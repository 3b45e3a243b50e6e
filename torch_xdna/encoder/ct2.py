"""Reads CTranslate2's model.bin: every variable as an array that lies in the mapped file.

The layout, little endian: u32 version, string name of the specification, u32 revision, u32 count; per variable a
string name, u8 rank, u32 each dimension, u8 type, u32 bytes, data; then u32 count of aliases, two strings each (the
second names a variable). A string is u16 length, its final zero byte included, and bytes (OpenNMT/CTranslate2,
python/ctranslate2/specs/model_spec.py, `ModelSpec._serialize`).
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import numpy as np

from torch_xdna.errors import XdnaError

VERSION = 6
SPECIFICATION = "WhisperSpec"
BFLOAT16 = 5  # numpy has no such type: its bits as uint16
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16, BFLOAT16: np.uint16}
_POINTER = b"version https://git-lfs.github.com/spec/"


def variables(path: Path) -> dict[str, np.ndarray]:
    """Every variable of a Whisper's model.bin by its own name, aliases included; scalars have shape ().

    bfloat16 comes as uint16. The arrays are read-only views of the file: nothing is loaded before it is used.
    Raises XdnaError.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise XdnaError(f"{path} can't be read: {error.strerror}; name a folder with a model.bin") from error
    return parsed(data, str(path))


def parsed(data: bytes | mmap.mmap, name: str) -> dict[str, np.ndarray]:
    """The same of a file's content; `name` is for errors."""
    if data[: len(_POINTER)] == _POINTER:
        raise XdnaError(f"{name} is a Git LFS pointer and not the file itself; run `git lfs pull` there")
    try:
        return _Reader(name, data).variables()
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise XdnaError(
            f"{name} is cut off or no model.bin of CTranslate2 ({len(data)} bytes); get the file again"
        ) from error


class _Reader:
    def __init__(self, name: str, data: mmap.mmap | bytes) -> None:
        self._name, self._data, self._at = name, data, 0

    def variables(self) -> dict[str, np.ndarray]:
        if (version := self._number("I")) != VERSION:
            raise XdnaError(
                f"{self._name} begins with version {version} where CTranslate2's format {VERSION} is known; convert "
                "the model again with a present ct2-transformers-converter"
            )
        if (name := self._string()) != SPECIFICATION:
            raise XdnaError(
                f"{self._name} holds a {name} and no Whisper ({SPECIFICATION}); take another model"
            )
        self._number("I")  # revision of the specification
        found = dict(self._variable() for _ in range(self._number("I")))
        for _ in range(self._number("I")):
            alias, name = self._string(), self._string()
            found[alias] = found[name]
        return found

    def _variable(self) -> tuple[str, np.ndarray]:
        name = self._string()
        shape = [self._number("I") for _ in range(self._number("B"))]
        kind, size = self._number("B"), self._number("I")
        if kind not in TYPES:
            raise XdnaError(
                f"{self._name}: {name} is of the unknown type {kind}; convert the model to float16"
            )
        dtype = np.dtype(TYPES[kind])
        value = np.frombuffer(self._data, dtype, size // dtype.itemsize, self._at).reshape(shape)
        self._at += size
        return name, value

    def _number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        length = self._number("H")
        raw = self._data[self._at : self._at + length]
        if len(raw) < length:
            raise ValueError("cut off")
        self._at += length
        return raw.rstrip(b"\0").decode()
