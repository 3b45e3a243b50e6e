"""The process: its socket, its signals, how it ends.

One SIGTERM (or Ctrl-C) lets what has begun finish within the grace time, and refuses everything else; a second one
ends at once. The exit code is 0 after the first.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from torch_xdna.errors import XdnaError
from torch_xdna.serve.app import Server
from torch_xdna.serve.guard import LOOPBACK, Access, EscapingFormatter
from torch_xdna.serve.limits import Limits
from torch_xdna.serve.queue import tell_warnings
from torch_xdna.speech.engine import Engine

_AFTER_GRACE = 5.0  # seconds for the last refusals to be sent
_log = logging.getLogger("torch_xdna.serve")


def run(load: Callable[[], Engine], limits: Limits, access: Access, host: str, port: int) -> None:
    """Serves until a signal. The address is taken first, `load` may take its time, and nobody can connect before it
    is done. Raises XdnaError if the address can't be had."""
    warnings.showwarning = _log_warning  # type: ignore[assignment]
    with bound(host, port) as found:
        asyncio.run(_serve(load(), limits, access, found))


def bound(host: str, port: int) -> socket.socket:
    """A socket that has its address and does not listen yet. Raises XdnaError in one sentence."""
    found = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        if found is not None:
            found.close()
        raise XdnaError(
            f"{host}:{port} can't be listened on: {error.strerror or error}; choose another --host or --port"
        ) from error
    return found


def shown_address(found: socket.socket) -> str:
    host, port = found.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")


def log_to_stderr(level: int = logging.INFO) -> None:
    """uvicorn's log and ours, one line per event, nothing of a client's unescaped."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EscapingFormatter("%(asctime)s %(levelname)s %(message)s"))
    levels = {"torch_xdna.serve": level, "uvicorn": logging.WARNING, "python_multipart": logging.ERROR}
    for name, its_level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(its_level)


def _log_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    _log.warning("%s", message)


async def _serve(engine: Engine, limits: Limits, access: Access, found: socket.socket) -> None:
    server = Server(engine, limits, access)
    warnings.showwarning = tell_warnings(server.queue)
    _log.info("serving %s on %s at %s", engine.name, engine.device, shown_address(found))
    await _Uvicorn(configured(server), server, limits.grace_seconds).serve(sockets=[found])


def configured(server: Server) -> uvicorn.Config:
    """uvicorn's settings for it."""
    limits = server.limits
    return uvicorn.Config(
        server.app,
        http=_patient(limits.idle_seconds),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=int(limits.grace_seconds + _AFTER_GRACE) + 1,
    )


class _Uvicorn(uvicorn.Server):
    """uvicorn that tells our server first, and that does not die of the signal afterwards."""

    def __init__(self, config: uvicorn.Config, server: Server, grace_seconds: float) -> None:
        super().__init__(config)
        self._server, self._grace_seconds = server, grace_seconds
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # it tells of each task that it ends
            self._loop.call_soon_threadsafe(self._server.queue.stop, True)
            return
        self.should_exit = True
        _log.info("%s: finishing what has begun", signal.Signals(sig).name)
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._server.stop()
        self._loop.call_later(self._grace_seconds, self._server.queue.stop, True)


def _patient(seconds: float) -> type[H11Protocol]:
    """HTTP by h11, which takes no malformed request, with an end to connections that never finish a request's head:
    uvicorn itself waits for those for ever."""

    class Protocol(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._forget()
            self._waiting = self.loop.call_later(seconds, self._expire)

        def _forget(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()

        def _expire(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Protocol
