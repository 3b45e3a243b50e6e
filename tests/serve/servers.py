"""A server with a scripted engine in this process, and the real one, `torch-xdna serve`, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import uvicorn
from scripted import Scripted, tone

from torch_xdna.serve import server as serving
from torch_xdna.serve.app import Server
from torch_xdna.serve.guard import Access
from torch_xdna.serve.limits import Limits


class Running:
    """A server on loopback; `engine`: its script; `folder`: where its uploads are."""

    def __init__(self, engine: Scripted, limits: Limits, access: Access, folder: Path) -> None:
        self.engine, self.limits, self.folder = engine, limits, folder
        self._listening = serving.bound("127.0.0.1", 0)
        self.address = serving.shown_address(self._listening)
        self.port = self._listening.getsockname()[1]
        self._access, self._ready = access, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.server = Server(self.engine, self.limits, self._access)
        self._uvicorn = uvicorn.Server(serving.configured(self.server))
        waiting = asyncio.ensure_future(self._uvicorn.serve(sockets=[self._listening]))
        while not self._uvicorn.started:
            await asyncio.sleep(0.005)
        self._ready.set()
        await waiting

    def on_loop(self, call: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(call)

    def end(self) -> None:
        self.engine.gate.set()
        self._uvicorn.should_exit = True
        self._thread.join(20)
        self._listening.close()
        assert not self._thread.is_alive()

    # Clients

    def ask(self, recording: bytes, path: str = "/v1/audio/transcriptions", **more: Any) -> requests.Response:
        headers = more.pop("headers", {})
        stream = more.pop("reading_later", False)
        files = {"file": ("a.wav", recording)}
        return requests.post(
            self.address + path, files=files, data=more, headers=headers, timeout=30, stream=stream
        )

    def asking(self, recording: bytes, **more: Any) -> Asking:
        return Asking(lambda: self.ask(recording, **more))

    def health(self) -> dict[str, Any]:
        return requests.get(self.address + "/health", timeout=10).json()

    def connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def is_idle(self) -> bool:
        """Nobody is admitted, nothing is queued, no upload is kept."""
        return (
            self.server.admitted == 0
            and not any(self.server.queue.state().values())
            and not self.open_uploads()
        )

    def open_uploads(self) -> list[str]:
        """Files of this process in the uploads' folder, deleted ones included."""
        found = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(link))
        return [name for name in found if name.startswith(str(self.folder))]

    def works(self) -> None:
        assert self.ask(tone(440)).json()["text"] == "440"


class Asking:
    """A request on a thread of its own."""

    def __init__(self, ask: Callable[[], requests.Response]) -> None:
        self._answer: Any = None
        self._thread = threading.Thread(target=self._run, args=(ask,))
        self._thread.start()

    def _run(self, ask: Callable[[], requests.Response]) -> None:
        try:
            self._answer = ask()
        except Exception as error:
            self._answer = error

    def status_or_nothing(self) -> int | None:
        """None where the connection ended without an answer."""
        self._thread.join(30)
        return getattr(self._answer, "status_code", None)

    def answer(self) -> requests.Response:
        self._thread.join(30)
        assert isinstance(self._answer, requests.Response), self._answer
        return self._answer


def soon(what: Callable[[], object], seconds: float = 5.0) -> None:
    """Waits until it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


class Process:
    """`torch-xdna serve` as a user starts it. `log`: what it wrote so far."""

    def __init__(self, folder: Path, *options: str, module: str = "torch_xdna") -> None:
        self._log = folder / "log.txt"
        command = [
            sys.executable,
            "-m",
            module,
            *(["serve"] if module == "torch_xdna" else []),
            "--port",
            "0",
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, *options], stderr=log, stdout=log, cwd=folder)
        soon(lambda: self.process.poll() is not None or " at http" in self.log, 120)
        found = re.search(r"serving .* at (http://\S+)", self.log)
        assert found, self.log
        self.address = found[1]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)
