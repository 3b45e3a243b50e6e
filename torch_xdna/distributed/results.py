"""Pieces become a row per recording in Parquet files of one folder, and what is there already is not done again.

A file appears whole or not at all. Rows: path, text, segments (start, end, text), language, duration in seconds,
device, error and whose it is, note (of damage), size and changed of the file that was read, worker.
`pandas.read_parquet(folder)` and every other reader of Parquet folders takes them together.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from torch_xdna.distributed.sources import Recording
from torch_xdna.distributed.workers import RUN
from torch_xdna.errors import XdnaError
from torch_xdna.speech.audio import shown

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("text", pa.string()),
        (
            "segments",
            pa.list_(pa.struct([("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())])),
        ),
        ("language", pa.string()),
        ("duration", pa.float64()),
        ("device", pa.string()),
        ("error", pa.string()),
        ("whose", pa.string()),
        ("note", pa.string()),
        ("size", pa.int64()),
        ("changed", pa.int64()),
        ("worker", pa.string()),
    ]
)
_JOB = "job.json"
_ROWS, _SECONDS = 1000, 10.0  # a file is written when it has so many rows, or so long after its first


class Folder:
    """The results of one job: the same model and options in every run of it."""

    def __init__(self, path: str | Path, job: dict[str, Any]) -> None:
        """Raises XdnaError if it can't be written to or holds another job's results."""
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stated = self.path / _JOB
            if stated.exists():
                before = json.loads(stated.read_text(encoding="utf-8"))
                if before != job:
                    other = ", ".join(f"{k} {before.get(k)}" for k in job if before.get(k) != job[k])
                    raise XdnaError(f"{path} holds transcripts of another job ({other}): name another folder")
            else:
                _put(stated, json.dumps(job, indent=1).encode())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise XdnaError(f"{path} can't hold the results: {reason}; name another folder") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time. Raises XdnaError."""
        with open(self.path / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise XdnaError(
                    f"another run writes to {self.path}: wait for it or name another folder"
                ) from error
            yield

    def files(self) -> list[Path]:
        return sorted(self.path.glob("*.parquet"))

    def done(self, keep: Iterable[Recording]) -> set[Recording]:
        """Those of `keep` that need not be done again: same size and time of change, and no error of the run itself.

        Older rows of what is to be done again are taken out, so that every recording has one row.
        """
        wanted = {shown(one.path): one for one in keep}
        done: set[Recording] = set()
        for file in self.files():
            stays = []
            for row in pq.read_table(file, columns=["path", "size", "changed", "whose"]).to_pylist():
                one = wanted.get(row["path"])
                is_same = one is not None and (one.size, one.changed) == (row["size"], row["changed"])
                is_done = is_same and row["whose"] != RUN and one not in done
                stays.append(one is None or is_done)
                if one is not None and is_done:
                    done.add(one)
            if not all(stays):
                self._rewrite(file, stays)
        return done

    def _rewrite(self, file: Path, stays: list[bool]) -> None:
        left = pq.read_table(file).filter(pa.array(stays))
        if left.num_rows:
            _write(left, file)
        else:
            file.unlink()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Raises XdnaError if there is no room."""
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}.parquet"
        _write(pa.Table.from_pylist(sorted(rows, key=lambda row: row["path"]), SCHEMA), self.path / name)


class Writer:
    """Takes pieces as they come, in any order and some of them twice; writes a row when a recording is whole."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._pieces: dict[str, dict[int, dict[str, Any]]] = {}
        self._rows: list[dict[str, Any]] = []
        self._written: set[str] = set()
        self._since = 0.0

    def take(self, piece: dict[str, Any]) -> dict[str, Any] | None:
        """The recording's row, if this was the last that was missing."""
        path = piece["recording"]["path"]
        if path in self._written:
            return None
        mine = self._pieces.setdefault(path, {})
        if piece["worker"] is None:  # what came of it before its workers died is not the whole
            mine.clear()
        mine[piece["number"]] = piece
        if not any(p["is_last"] and p["number"] + 1 == len(mine) for p in mine.values()):
            return None
        row = joined([mine[number] for number in range(len(mine))])
        del self._pieces[path]
        self._written.add(path)
        self._since = self._since if self._rows else time.monotonic()
        self._rows.append(row)
        if len(self._rows) >= _ROWS or time.monotonic() - self._since > _SECONDS:
            self.flush()
        return row

    def flush(self) -> None:
        if self._rows:
            self._folder.add(self._rows)
            self._rows = []


def joined(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """A recording's row from all its pieces; of one that broke off, what came before its error."""
    recording = pieces[0]["recording"]
    failed = next((p for p in pieces if p["error"]), None)
    languages: dict[str, float] = {}
    for piece in pieces:
        for code, seconds in piece["languages"].items():
            languages[code] = languages.get(code, 0.0) + seconds
    segments = [segment for piece in pieces for segment in piece["segments"]]
    return {
        "path": shown(recording["path"]),
        "text": " ".join(segment["text"] for segment in segments),
        "segments": segments,
        "language": max(languages, key=lambda code: languages[code], default=None),
        "duration": sum(piece["seconds"] for piece in pieces),
        "device": ", ".join(sorted({device for piece in pieces for device in piece["devices"]})) or None,
        "error": failed["error"] if failed else None,
        "whose": failed["whose"] if failed else None,
        "note": " ".join(piece["note"] for piece in pieces if piece["note"]) or None,
        "size": recording["size"],
        "changed": recording["changed"],
        "worker": pieces[-1]["worker"],
    }


def _write(table: pa.Table, file: Path) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    try:
        _put(file, buffer.getvalue().to_pybytes())
    except OSError as error:
        raise XdnaError(f"{file} can't be written: {error.strerror}; what is done so far is kept") from error


def _put(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
