"""Where a recording's bytes come from: a file, standard input or a named pipe.

Pipes are copied to a temporary file first: some formats keep their index at the end (mp4 of a phone), and what
is checked before the first sample needs the whole length.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from torch_xdna.errors import XdnaError

STANDARD_INPUT = "-"
WRITER_SECONDS = 5.0  # how long a named pipe may wait for somebody to write into it


class AudioError(XdnaError, ValueError):
    """A recording can't be read; the message is one sentence that names the file and the reason."""


def shown(path: str | Path) -> str:
    """A path as one line of valid Unicode: bytes that are no UTF-8 and control characters become escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def label(path: str | Path) -> str:
    """What messages call the recording."""
    return "standard input" if str(path) == STANDARD_INPUT else shown(path)


def is_stored(path: str | Path) -> bool:
    """Whether it can be looked at without using it up."""
    return str(path) != STANDARD_INPUT and os.path.isfile(path)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[tuple[BinaryIO, int]]:
    """A seekable file and its length in bytes (> 0). Raises AudioError for whatever can't be opened."""
    name = label(path)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_open(path, name))
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
        except FileNotFoundError as error:
            raise AudioError(f"{name} does not exist.") from error
        except OSError as error:
            raise AudioError(f"{name} can't be read: {error.strerror or error}.") from error
        if size == 0:
            raise AudioError(f"{name} is empty (0 bytes).")
        yield file, size


def _open(path: str | Path, name: str) -> BinaryIO:
    if str(path) == STANDARD_INPUT:
        if sys.stdin is None or sys.stdin.closed:
            raise AudioError("standard input is closed: pipe a recording into it.")
        if sys.stdin.isatty():
            raise AudioError("standard input is a terminal: pipe a recording into it.")
        return _copied(sys.stdin.buffer)
    mode = os.stat(path).st_mode
    if stat.S_ISFIFO(mode):
        return _copied_pipe(path, name)
    if stat.S_ISDIR(mode):
        raise AudioError(f"{name} is a folder, which is not a file: name a recording.")
    if not stat.S_ISREG(mode):
        raise AudioError(f"{name} is not a file: name a recording, or - for standard input.")
    return open(path, "rb")


def _copied(stream: Any, first: bytes = b"") -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115, the caller closes it
    try:
        file.write(first)
        shutil.copyfileobj(stream, file, 1 << 20)
    except BaseException:
        file.close()
        raise
    return file


def _copied_pipe(path: str | Path, name: str) -> BinaryIO:
    """Opening a pipe that nobody writes to would wait for ever, so it is opened without waiting: until there is
    a writer it reads as empty, with one it has nothing yet (BlockingIOError) or bytes.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        end = time.monotonic() + WRITER_SECONDS
        first: bytes | None = b""
        while first == b"" and time.monotonic() < end:
            first = pipe.read(1 << 16)  # None: a writer that has written nothing so far
            if first == b"":
                time.sleep(0.02)
        if first == b"":
            raise AudioError(f"{name} is a pipe that nothing was written to for {WRITER_SECONDS:.0f} s.")
        os.set_blocking(pipe.fileno(), True)
        return _copied(pipe, first or b"")
