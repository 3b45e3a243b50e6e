"""A request's body as it streams in: fields, and the recording in a file that has no name.

The file never has a name in any folder (O_TMPFILE, or unlinked at once where the file system lacks that), so whatever
ends the server, nothing stays behind; it is read again through /proc/self/fd. The name that a client gives its file is
not looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from torch_xdna.serve.limits import Limits
from torch_xdna.serve.refused import Refused

FILE = "file"  # the field that every interface sends the recording in
_BOUNDARY_BYTES = 70  # RFC 2046, 5.1.1
_HEADER_BYTES = 8 << 10  # of all headers of one part
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Receive = Callable[[], Awaitable[Any]]


class Left(Exception):
    """The client is gone; nobody hears an answer."""


@dataclass
class Upload:
    """`fields`: name and value in the order of the form; `file`: what was sent as `file`, None if nothing was."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    file: BinaryIO | None = None

    @property
    def path(self) -> str:
        """Where the file can be opened while it is open here."""
        if self.file is None:
            raise Refused(400, "the form has no 'file' field: send the recording in it", "missing_file")
        self.file.flush()
        return f"/proc/self/fd/{self.file.fileno()}"

    def close(self) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError):  # a full disk fails once more here, and the file is closed
                self.file.close()


async def received(receive: Receive, headers: dict[str, str], limits: Limits) -> Upload:
    """The body of a multipart form; the caller closes it. Raises Refused (400, 408, 411, 413, 415, 507) or Left,
    and then leaves nothing open.
    """
    kind, options = parse_options_header(headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused(415, "send a form: Content-Type multipart/form-data with a boundary", "not_multipart")
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.upload_bytes:
        raise _too_large(limits)
    boundary = options[b"boundary"]
    if len(boundary) > _BOUNDARY_BYTES:
        raise Refused(415, f"the form's boundary is longer than {_BOUNDARY_BYTES} bytes", "not_multipart")
    form = _Form(boundary, limits)
    try:
        await asyncio.wait_for(_receive(receive, form, limits), limits.upload_seconds)
        if not form.is_whole:
            raise Refused(400, "the form breaks off before its last boundary: send it again", "broken_form")
        return form.upload
    except BaseException as error:
        form.upload.close()
        if isinstance(error, asyncio.TimeoutError):
            raise Refused(
                408, f"the upload took longer than {limits.upload_seconds:.0f} s", "upload_timeout"
            ) from None
        if isinstance(error, FormParserError):
            raise Refused(
                400, "the form can't be read: it is no valid multipart/form-data", "broken_form"
            ) from None
        if isinstance(error, OSError) and error.errno in _FULL:
            raise Refused(
                507, "no space is left for the upload: ask again later", "disk_full", retry_seconds=60
            ) from None
        raise


async def _receive(receive: Receive, form: _Form, limits: Limits) -> None:
    size = 0
    while True:
        try:
            message = await asyncio.wait_for(receive(), limits.idle_seconds)
        except asyncio.TimeoutError:
            raise Refused(408, f"nothing came for {limits.idle_seconds:.0f} s", "upload_timeout") from None
        if message["type"] == "http.disconnect":
            raise Left
        size += len(message["body"])
        if size > limits.upload_bytes:
            raise _too_large(limits)
        if message["body"]:
            await asyncio.to_thread(form.write, message["body"])  # a slow disk must not hold up other clients
        if not message.get("more_body"):
            return


async def discarded(receive: Receive, limit: int, seconds: float) -> None:
    """Reads what is left of a body that is refused: a client that is still writing would not hear the answer."""

    async def read() -> None:
        size = 0
        while size < limit:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                return
            size += len(message["body"])

    try:
        await asyncio.wait_for(read(), seconds)
    except asyncio.TimeoutError:
        return


def _too_large(limits: Limits) -> Refused:
    size = f"{limits.upload_bytes / (1 << 20):.0f} MB"
    return Refused(
        413, f"the upload is larger than the {size} that this server takes: send less", "too_large"
    )


class _Form:
    """python-multipart's events as an Upload; every method runs on one thread at a time."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self.upload, self.is_whole = Upload(), False
        self._limits = limits
        self._parts, self._value_bytes = 0, 0
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value, self._header_bytes = b"", b"", 0
        self._name, self._is_file = "", False
        self._text = bytearray()
        callbacks: Any = {
            "on_part_begin": self._part_begin,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def write(self, data: bytes) -> None:
        self._parser.write(data)

    def _part_begin(self) -> None:
        self._headers, self._header_bytes, self._text = {}, 0, bytearray()
        self._parts += 1
        if self._parts > self._limits.fields:
            raise Refused(400, f"the form has more than {self._limits.fields} fields", "broken_form")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += self._counted(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._counted(data[start:end])

    def _counted(self, data: bytes) -> bytes:
        self._header_bytes += len(data)
        if self._header_bytes > _HEADER_BYTES:
            raise Refused(400, "a field of the form has too long a header", "broken_form")
        return data

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        # whisper.cpp's clients and curl's @file have a file name; a recording without one is a file all the same.
        self._is_file = self._name == FILE or b"filename" in options
        if self._name == FILE:
            if self.upload.file is not None:
                raise Refused(400, "the form has more than one 'file': send one at a time", "broken_form")
            self.upload.file = tempfile.TemporaryFile(dir=self._limits.folder)  # noqa: SIM115, closed by Upload

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE and self.upload.file is not None:
            self.upload.file.write(data[start:end])
            return
        if self._is_file:
            return  # files under other names are of no use
        self._value_bytes += end - start
        if self._value_bytes > self._limits.field_bytes:
            raise Refused(
                400, f"the form's fields hold more than {self._limits.field_bytes >> 10} KB", "broken_form"
            )
        self._text += data[start:end]

    def _part_end(self) -> None:
        if not self._is_file:
            self.upload.fields.append((self._name, self._text.decode("utf-8", "replace")))

    def _end(self) -> None:
        self.is_whole = True
        if self.upload.file is not None:
            self.upload.file.flush()  # a full disk is said now
