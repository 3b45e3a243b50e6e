"""Recordings and what is said in them: a JSON, JSON-lines, CSV or TSV file, or a folder with .txt files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_xdna.errors import XdnaError

# As other programs call the columns: NeMo audio_filepath, Common Voice path and sentence, datasets audio and text.
AUDIO = ("audio", "file", "path", "audio_filepath", "audio_path", "filename")
TEXT = ("text", "transcript", "transcription", "sentence", "reference")


@dataclass(frozen=True)
class Entry:
    """`text`: what is said."""

    audio: Path
    text: str


def read(source: Path) -> list[Entry]:
    """The entries in order; paths of recordings count from the manifest's folder. Raises XdnaError."""
    try:
        entries = list(_of_folder(source) if source.is_dir() else _of_file(source))
    except (OSError, UnicodeDecodeError) as error:
        raise XdnaError(f"{source} can't be read: {getattr(error, 'strerror', None) or error}; name a manifest (json, "
                        "csv) or a folder of recordings with .txt files") from error  # fmt: skip
    if not entries:
        raise XdnaError(
            f"{source} names no recording with its text: a folder needs talk.wav with talk.txt beside it"
        )
    return entries


def _of_folder(folder: Path) -> Iterator[Entry]:
    for text in sorted(folder.glob("*.txt")):
        beside = sorted(
            p for p in folder.glob(f"{_escaped(text.stem)}.*") if p.suffix not in (".txt", ".json")
        )
        if len(beside) > 1:
            raise XdnaError(
                f"{text} belongs to {len(beside)} files, {beside[0].name} and others; leave one of them"
            )
        if beside:
            yield Entry(beside[0], text.read_text(encoding="utf-8").strip())


def _escaped(stem: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)


def _of_file(path: Path) -> Iterator[Entry]:
    content = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() in (".csv", ".tsv"):
        rows: Iterable[Any] = csv.DictReader(
            content.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ","
        )
    else:
        rows = _json(path, content)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise XdnaError(
                f"{path}, entry {number} is {type(row).__name__} and no object with a file and its text"
            )
        yield Entry(
            path.parent / _column(path, number, row, AUDIO, "a recording"),
            _column(path, number, row, TEXT, "what is said"),
        )


def _json(path: Path, content: str) -> list[Any]:
    try:
        found = json.loads(content)
        return found if isinstance(found, list) else [found]
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    except ValueError as error:
        raise XdnaError(
            f"{path} is neither JSON nor JSON lines ({error}), and its name does not end in .csv"
        ) from error


def _column(path: Path, number: int, row: Mapping[str, Any], names: tuple[str, ...], what: str) -> str:
    for name in names:
        if isinstance(row.get(name), str):
            return row[name].strip()
    raise XdnaError(f"{path}, entry {number} names not {what}: none of {', '.join(names)} is in it")
