"""Files that commands write: whole or not at all, and a sentence where that can't be."""

from __future__ import annotations

import os
from pathlib import Path

from torch_xdna.errors import XdnaError


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: until then, and after any failure, what was there stays.

    Raises XdnaError.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe
            path.write_bytes(content)
            return
        try:
            beside.write_bytes(content)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise XdnaError(f"{path} can't be written: {error.strerror}; name another file") from error


def check(path: Path) -> None:
    """Find out before long work that its result could be kept. Raises XdnaError."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "is a folder" if path.is_dir() else f"can't be made in {folder}"
        raise XdnaError(f"{path} {what}; name another file")
