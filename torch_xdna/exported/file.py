"""The container: safetensors, read as a map of the file, so that processes share its pages and nothing is loaded that
is not used.

Its header (u64 length, JSON) is 8-byte aligned and tensors follow one another (huggingface/safetensors, README). The
manifest is the metadata entry "xdna".
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from torch_xdna.errors import XdnaError

FORMAT = 1  # of the manifest and what its names mean
ENTRY = "xdna"
_TYPES = {"U8": np.uint8, "U32": np.uint32}


def checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def content(tensors: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> bytes:
    """The file's bytes; the manifest gets format and checksums."""
    from safetensors.numpy import save

    whole = {
        **manifest,
        "format": FORMAT,
        "crc32": {name: checksum(value) for name, value in tensors.items()},
    }
    return save(dict(tensors), metadata={ENTRY: json.dumps(whole)})


class File:
    """An exported encoder's file, mapped. `manifest`: what `content` was given. Raises XdnaError for any other file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._bytes = np.memmap(self.path, np.uint8, "r")
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise XdnaError(
                f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is empty'}; name a file that "
                "torch-xdna export made"
            ) from error
        self.manifest, self._tensors = self._header()

    def _header(self) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            length = int.from_bytes(self._bytes[:8].tobytes(), "little")
            header = json.loads(self._bytes[8 : 8 + length].tobytes())
            manifest = json.loads(header.pop("__metadata__")[ENTRY])
            self._start = 8 + length
            end = self._start + max(entry["data_offsets"][1] for entry in header.values())
            found = manifest["format"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise XdnaError(
                f"{self.path} is cut off or was not made by torch-xdna export ({len(self._bytes)} bytes); export it "
                "again"
            ) from error
        if found != FORMAT:
            raise XdnaError(
                f"{self.path} has format {found} and this version of torch-xdna reads {FORMAT}; export it again"
            )
        if end > len(self._bytes):
            raise XdnaError(
                f"{self.path} is cut off: {end} bytes are announced and {len(self._bytes)} are there; copy or export "
                "it again"
            )
        return manifest, header

    def tensor(self, name: str) -> np.ndarray:
        """A read-only view of the mapped file. Raises XdnaError if its bytes are not those that were written."""
        entry = self._tensors[name]
        begin, end = entry["data_offsets"]
        value = self._bytes[self._start + begin : self._start + end].view(_TYPES[entry["dtype"]])
        if checksum(value) != self.manifest["crc32"][name] or value.size != math.prod(entry["shape"]):
            raise XdnaError(
                f"{self.path} is damaged: {name} is not what was written; copy or export it again"
            )
        return value.reshape(entry["shape"])
