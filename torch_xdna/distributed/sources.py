"""What there is to transcribe: a folder and all below it, a pattern, a list in a text file, paths."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_xdna.errors import XdnaError

# By a file's name, in folders and patterns only; what a list or an argument names is taken at its word.
SUFFIXES = (
    *(".wav", ".w64", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aac", ".ac3", ".m4a", ".wma", ".wv"),
    *(".aiff", ".aif", ".au", ".caf", ".amr", ".mka", ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"),
    *(".3gp", ".mpg", ".mpeg", ".ts"),
)


@dataclass(frozen=True, order=True)
class Recording:
    """One file. `size` in bytes and `changed` in ns, both -1 where it can't be looked at: reading says why."""

    path: str
    size: int
    changed: int


def recordings(source: str | Path | Iterable[str | Path]) -> list[Recording]:
    """In the order of their paths, each once. Raises XdnaError if there are none."""
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    paths = sorted({os.path.abspath(path) for one in sources for path in _paths(os.fspath(one))})
    if not paths:
        named = ", ".join(map(str, sources[:3]))
        raise XdnaError(f"there is no recording in {named}: name a folder, files, a pattern or a list (.txt)")
    return [_recording(path) for path in paths]


def _paths(source: str) -> Sequence[str]:
    if os.path.isdir(source):
        return [
            os.path.join(folder, name)
            for folder, _, names in os.walk(source)
            for name in names
            if name.lower().endswith(SUFFIXES)
        ]
    if source.endswith(".txt"):
        return _listed(source)
    if os.path.exists(source):
        return [source]
    found = glob.glob(source, recursive=True)
    if not found:
        raise XdnaError(f"{source} does not exist, and as a pattern it finds nothing")
    return [path for path in found if os.path.isfile(path)]


def _listed(file: str) -> Sequence[str]:
    """One path per line, relative ones from the list's own folder."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as lines:
            found = [line.rstrip("\r\n") for line in lines]
    except OSError as error:
        raise XdnaError(f"{file} can't be read: {error.strerror}; name a list of recordings") from error
    return [os.path.join(os.path.dirname(file), path) for path in found if path.strip()]


def _recording(path: str) -> Recording:
    try:
        found = os.stat(path)
    except OSError:
        return Recording(path, -1, -1)
    return Recording(path, found.st_size, found.st_mtime_ns)
