"""What serving.py does to the real server once it has carried the load: name -> what a client got, and whether the
server is as it was: answers with the right text, has admitted nobody, holds no upload.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

Fault = Callable[[Any, str, str], tuple[str, bool]]
_SLOW_CLIENTS = 20


def _body(path: str) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return head + Path(path).read_bytes() + b"\r\n--b--\r\n"


def _head(length: int) -> bytes:
    return (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % length
    )


def _connected(server: Any) -> socket.socket:
    at = urlsplit(server.address)
    return socket.create_connection((at.hostname, at.port), timeout=60)


def _as_before(server: Any, path: str, expected: str) -> tuple[str, bool]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        queue = server.health()["queue"]
        links = []
        for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed just now
                links.append(os.readlink(link))
        uploads = [link for link in links if "(deleted)" in link and "/tmp" in link]
        if not queue["admitted"] and not queue["jobs"] and not uploads:
            break
        time.sleep(0.1)
    else:
        return f"after it {queue}, {len(uploads)} uploads are kept", False
    return (
        ("after it all is as before", True) if server.text(path) == (200, expected) else ("wrong text", False)
    )


def _told(what: str, good: bool, server: Any, path: str, expected: str) -> tuple[str, bool]:
    after, well = _as_before(server, path, expected)
    return f"{what}; {after}", good and well


def broken(server: Any, path: str, expected: str) -> tuple[str, bool]:
    """Cut in the form, cut in the recording, no recording at all."""
    whole = _body(path)
    cut = Path(path).read_bytes()[: os.path.getsize(path) // 2]
    statuses = []
    for body in (whole[:-10], whole[: len(whole) // 2], b"", b"--b\r\n", os.urandom(100_000)):
        headers = {"content-type": "multipart/form-data; boundary=b"}
        at = server.address + "/v1/audio/transcriptions"
        statuses.append(requests.post(at, data=body, headers=headers, timeout=60).status_code)
    for content in (b"", b"words", os.urandom(200_000)):
        at = server.address + "/inference"
        statuses.append(requests.post(at, files={"file": content}, timeout=60).status_code)
    damaged = requests.post(server.address + "/inference", files={"file": cut}, timeout=60).status_code
    return _told(f"{statuses}; half a FLAC file {damaged}", set(statuses) == {400}, server, path, expected)


def slow(server: Any, path: str, expected: str) -> tuple[str, bool]:
    """Clients that send a byte a second hold nobody up: the others are answered meanwhile."""
    whole = _body(path)
    clients = [_connected(server) for _ in range(_SLOW_CLIENTS)]
    for client in clients:
        client.sendall(_head(len(whole)) + whole[:200])
    begin, served = time.monotonic(), 0
    while time.monotonic() - begin < 5:
        served += server.text(path) == (200, expected)
        for client in clients:
            client.sendall(whole[200:201])
    for client in clients:
        client.close()
    what = f"{_SLOW_CLIENTS} slow clients, {served} others were answered in 5 s"
    return _told(what, served > 0, server, path, expected)


def half_closed(server: Any, path: str, expected: str) -> tuple[str, bool]:
    """A client that closes its sending side in its body, after it, or leaves in the middle of its answer."""
    whole = _body(path)
    for body, end in ((whole[:500], socket.SHUT_WR), (whole, socket.SHUT_WR), (whole, socket.SHUT_RDWR)):
        for _ in range(20):
            with _connected(server) as client:
                client.sendall(_head(len(whole)) + body)
                client.shutdown(end)
    return _told("60 of them", True, server, path, expected)


def idle(server: Any, path: str, expected: str) -> tuple[str, bool]:
    """Connections that say nothing, or half a request's head."""
    clients = [_connected(server) for _ in range(100)]
    for client in clients[::2]:
        client.sendall(b"POST /v1/audio/tran")
    good = server.text(path) == (200, expected)
    for client in clients:
        client.close()
    return _told("100 of them, another was answered", good, server, path, expected)


def crowd(server: Any, path: str, expected: str) -> tuple[str, bool]:
    """More at once than the queue takes: 64 places are taken by uploads that do not go on."""
    whole = _body(path)
    clients = [_connected(server) for _ in range(64)]
    for client in clients:
        client.sendall(_head(len(whole)) + whole[:200])
    end = time.monotonic() + 20
    while server.health()["queue"]["admitted"] < 64 and time.monotonic() < end:
        time.sleep(0.05)
    with open(path, "rb") as file:
        answer = requests.post(server.address + "/inference", files={"file": file}, timeout=60)
    for client in clients:
        client.close()
    what = f"{answer.status_code}, Retry-After {answer.headers.get('retry-after')}"
    return _told(what, answer.status_code == 429, server, path, expected)


FAULTS: dict[str, Fault] = {
    "broken uploads": broken,
    "slow uploads": slow,
    "half-closed and closed connections": half_closed,
    "idle connections": idle,
    "a full queue": crowd,
}


def full_disk(serve: Callable[..., Any], path: str, expected: str) -> tuple[str, bool]:
    """A file system of 1 MB for the uploads; where none can be mounted, files of at most 1 MB (RLIMIT_FSIZE)."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            before = [] if mounted else ["prlimit", "--fsize=1000000"]
            server = serve("--temp-folder", folder, before=before)
            try:
                large = Path(path).read_bytes() + bytes(3_000_000)
                answer = requests.post(server.address + "/inference", files={"file": large}, timeout=60)
                empty = not os.listdir(folder)
                where = "a file system of 1 MB" if mounted else "a limit of 1 MB per file"
                what = f"{answer.status_code} on {where}, nothing is left there: {empty}"
                return _told(what, answer.status_code == 507 and empty, server, path, expected)
            finally:
                server.stop()
        finally:
            if mounted:
                subprocess.run(["umount", "-l", folder], check=False)
