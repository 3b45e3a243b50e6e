"""Uploads that break, crawl, lie or flood, and a full disk: each is answered or let go, nothing stays behind."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest
import requests
from scripted import tone
from servers import Running, soon

from torch_xdna.serve import uploads

Start = Callable[..., Running]
BOUNDARY = b"frontier"


def part(name: bytes, content: bytes, more: bytes = b"") -> bytes:
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n' % (BOUNDARY, name, more)
    return head + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--%b--\r\n" % BOUNDARY


def post(
    server: Running, body: bytes, kind: str = "multipart/form-data; boundary=frontier"
) -> requests.Response:
    headers = {"content-type": kind}
    return requests.post(server.address + "/v1/audio/transcriptions", data=body, headers=headers, timeout=20)


SOUND = part(b"file", tone(440), b'; filename="a.wav"')
WRONG: dict[str, tuple[bytes, str, int, str]] = {
    "no body": (b"", "multipart/form-data; boundary=frontier", 400, "breaks off"),
    "no form": (b"{}", "application/json", 415, "multipart/form-data"),
    "no boundary": (form(SOUND), "multipart/form-data", 415, "boundary"),
    "another boundary": (form(SOUND), "multipart/form-data; boundary=other", 400, "can't be read"),
    "a boundary as long as a book": (
        b"",
        "multipart/form-data; boundary=" + "x" * 5000,
        415,
        "longer than 70",
    ),
    "no file": (form(part(b"model", b"whisper-1")), "", 400, "no 'file' field"),
    "an empty file": (form(part(b"file", b"", b'; filename="a"')), "", 400, "is empty"),
    "cut in the file": (form(SOUND)[:5000], "", 400, "breaks off"),
    "cut in a header": (form(SOUND)[:40], "", 400, "breaks off"),
    "two files": (form(SOUND, SOUND), "", 400, "more than one 'file'"),
    "many fields": (form(*(part(b"x%d" % n, b"") for n in range(100)), SOUND), "", 400, "more than 64"),
    "a long field": (form(part(b"prompt", b"x" * 100_000), SOUND), "", 400, "fields hold more than"),
    "a long header": (form(part(b"x" * 20_000, b""), SOUND), "", 400, "form"),
    "a cut recording": (form(part(b"file", tone(440)[:9000])), "", 400, "is truncated"),
    "noise": (form(part(b"file", bytes(range(256)) * 40)), "", 400, "is not audio"),
    "a playlist": (form(part(b"file", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")), "", 400, "is not audio"),
    "no text": (form(part(b"model", b"\xff\xfe\x00"), SOUND), "", 404, "no such model"),
}


def test_wrong_forms(start: Start) -> None:
    server = start()
    for name, (body, kind, status, says) in WRONG.items():
        answer = post(server, body, *([kind] if kind else []))
        message = answer.json()["error"]["message"]
        assert (answer.status_code, says in message) == (status, True), (name, answer.status_code, message)
        assert "/proc" not in message
        soon(server.is_idle)
    server.works()


def test_file_names_mean_nothing(start: Start) -> None:
    server = start()
    for name in (
        b"../../etc/passwd",
        b"/dev/null",
        b"a\x00b",
        b"-",
        b"x" * 3000,
        b"http://a/b",
        b"%2e%2e%2f",
        b"\xff",
    ):
        odd = part(b"file", tone(440), b'; filename="%b"' % name)
        assert post(server, form(odd)).json()["text"] == "440"
    assert not list(server.folder.iterdir())


def test_while_it_uploads_no_folder_shows_it(start: Start) -> None:
    server = start()
    whole = form(part(b"file", tone(440, 5), b'; filename="a.wav"'))
    with server.connected() as client:
        head = b"POST /inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=%b\r\n"
        client.sendall(head % BOUNDARY + b"Content-Length: %d\r\n\r\n" % len(whole) + whole[:100_000])
        soon(server.open_uploads)
        assert not list(server.folder.iterdir())
        client.sendall(whole[100_000:])
        assert b" 440" in received(client)
    soon(server.is_idle)


def test_too_large(start: Start) -> None:
    server = start(upload_bytes=100_000)
    answer = server.ask(tone(440, 30))
    assert answer.status_code == 413 and "larger than" in answer.json()["error"]["message"]

    def unannounced():
        yield part(b"file", b"")[:-2]
        for _ in range(40):
            yield b"\0" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=frontier"}
    at = server.address + "/v1/audio/transcriptions"
    answer = requests.post(at, data=unannounced(), headers=headers, timeout=20)
    assert answer.status_code == 413
    soon(server.is_idle)


def test_too_long(start: Start) -> None:
    server = start(audio_seconds=30)
    answer = server.ask(
        tone(440, 31)
    )  # within what lengths may be guessed wrong: it is said while it is read
    assert answer.status_code == 413 and "longer than the 30 s" in answer.json()["error"]["message"]
    assert server.ask(tone(440, 300)).status_code == 413  # at once, from its header
    soon(server.is_idle)
    server.works()


HEAD = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: multipart/form-data; boundary=frontier\r\nContent-Length: 100000\r\n\r\n"
)


def received(client: socket.socket) -> bytes:
    """All that comes until the server closes or the answer is whole."""
    found = b""
    while True:
        try:
            more = client.recv(1 << 16)
        except ConnectionError:
            return found
        found += more
        head, _, body = found.partition(b"\r\n\r\n")
        length = next(
            (int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), None
        )
        if not more or (length is not None and len(body) >= length):
            return found


def test_slow(start: Start) -> None:
    """Without a byte for the idle time, in the body and in a request's head; and longer than an upload may take."""
    server = start(idle_seconds=0.7, upload_seconds=1.4)
    with server.connected() as client:
        client.sendall(HEAD + form(SOUND)[:500])
        assert received(client).startswith(b"HTTP/1.1 408")
    for head in (b"", b"POST /v1/au"):
        with server.connected() as client:
            client.sendall(head)
            assert received(client) == b""
    with server.connected() as client:
        client.sendall(HEAD + part(b"file", b"")[:-2])
        client.settimeout(0.1)
        found = b""
        for _ in range(40):  # a byte at a time
            try:
                client.sendall(b"\0")
                found = client.recv(100)
                break
            except TimeoutError:
                continue
        assert found.startswith(b"HTTP/1.1 408")
    soon(server.is_idle)
    server.works()


def test_half_closed_and_broken_off(start: Start) -> None:
    """A client that closes its side, or all of it, midway through its body or while it waits."""
    server = start()
    whole = HEAD.replace(b"100000", b"%d" % len(form(SOUND))) + form(SOUND)
    for end in (socket.SHUT_WR, socket.SHUT_RDWR):
        with server.connected() as client:
            client.sendall(HEAD + form(SOUND)[:500])
            client.shutdown(end)
            soon(server.is_idle)
        server.engine.gate.clear()
        server.engine.running.clear()
        with server.connected() as client:
            client.sendall(whole)
            soon(server.engine.running.is_set)
            client.shutdown(end)
            soon(lambda: server.server.admitted == 0)
        server.engine.gate.set()
        soon(server.is_idle)
    server.works()


def test_no_http(start: Start) -> None:
    server = start()
    for lines in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        with server.connected() as client:
            client.sendall(lines)
            assert received(client).startswith(b"HTTP/1.1 400")
    server.works()


class Full:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    real = uploads.tempfile.TemporaryFile
    server = start()
    with monkeypatch.context() as patch:
        patch.setattr(uploads.tempfile, "TemporaryFile", lambda **more: Full(real(**more), 50_000))
        answer = server.ask(tone(440, 30))
        assert answer.status_code == 507 and "no space is left" in answer.json()["error"]["message"]
        server.works()  # a small one still fits
        soon(server.is_idle)
    assert server.ask(tone(440, 30)).status_code == 200
