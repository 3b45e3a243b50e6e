"""Around every request: who may ask, what the log says, what every answer carries.

Without a key only this machine may ask. A web page that this machine's user happens to look at can send requests to
loopback as well, under a name of its own (DNS rebinding) or as a plain form: so the Host must be one of ours, and an
Origin, which browsers add, the same or one that was allowed.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

from torch_xdna.serve.metrics import Metrics
from torch_xdna.serve.refused import Refused
from torch_xdna.serve.uploads import discarded

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/", "/page.js", "/page.css", "/health")  # hold nothing that a key protects
_DISCARDED_BYTES, _DISCARDED_SECONDS = 8 << 20, 5.0
# The page needs nothing from elsewhere and may not ask for it.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_log = logging.getLogger("torch_xdna.serve")


@dataclass(frozen=True)
class Access:
    """`key`: what clients must show, empty for none; `hosts`: names that a request may be sent to, empty for any;
    `origins`: web pages that may ask, besides the server's own."""

    key: str = ""
    hosts: tuple[str, ...] = LOOPBACK
    origins: tuple[str, ...] = ()


class Guard:
    """ASGI middleware. `routes`: the paths that exist, which the log and the metrics may name."""

    def __init__(self, app: App, access: Access, metrics: Metrics, routes: tuple[str, ...]) -> None:
        self._app, self._access, self._metrics, self._routes = app, access, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 0
        headers = read_headers(scope)
        origin = headers.get("origin", "")
        more = {**_HEADERS, **self._cors(origin)}

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                raw = [(name.encode(), value.encode("latin-1")) for name, value in more.items()]
                message["headers"] = [*message["headers"], *(pair for pair in raw if pair[0] not in given)]
            await send(message)

        try:
            refused = self._refusal(scope, headers, origin)
            if refused is not None:
                await discarded(receive, _DISCARDED_BYTES, _DISCARDED_SECONDS)
                await JSONResponse(refused.as_openai(), refused.status, refused.headers)(
                    scope, receive, sending
                )
            elif scope["method"] == "OPTIONS" and self._cors(origin):
                await JSONResponse(None, 200)(scope, receive, sending)
            else:
                await self._app(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - begin
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.answered(route, status or 499, seconds)  # 499: the client left before an answer
            path = escaped(scope["path"])[:200]
            _log.info("%s %s %s %.3f s", escaped(scope["method"])[:16], path, status or "left", seconds)

    def _refusal(self, scope: Scope, headers: dict[str, str], origin: str) -> Refused | None:
        if self._access.hosts and _host(headers.get("host", "")) not in self._access.hosts:
            return Refused(421, "this server is not known under that name: see --allow-host", "wrong_host")
        # "null" is what sandboxed frames and local files send: any page can make one.
        if origin and not self._is_own(origin, headers) and origin not in self._access.origins:
            return Refused(
                403, "web pages from elsewhere may not ask here: see --allow-origin", "wrong_origin"
            )
        is_preflight = scope["method"] == "OPTIONS" and origin in self._access.origins
        if (
            self._access.key
            and scope["path"] not in OPEN
            and not is_preflight
            and not self.knows_key(headers)
        ):
            return Refused(401, "send the server's key as `Authorization: Bearer KEY`", "invalid_api_key")
        return None

    def knows_key(self, headers: dict[str, str]) -> bool:
        return knows_key(self._access.key, headers)

    def _is_own(self, origin: str, headers: dict[str, str]) -> bool:
        return bool(origin) and urlsplit(origin).netloc == headers.get("host")

    def _cors(self, origin: str) -> dict[str, str]:
        if origin not in self._access.origins:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-allow-headers": "authorization, content-type",
            "access-control-expose-headers": "x-torch-xdna-device, x-torch-xdna-note, retry-after",
            "vary": "origin",
        }


def knows_key(key: str, headers: dict[str, str]) -> bool:
    """Whether a request shows the key; takes as long whatever it shows."""
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    return hmac.compare_digest(shown.strip().encode(), key.encode()) and scheme.lower() == "bearer"


def read_headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def escaped(text: str) -> str:
    """One line that a terminal shows as it is: everything but printable ASCII becomes an escape."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text)


def _host(header: str) -> str:
    """A Host header without its port and without an IPv6 address's brackets."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


class EscapingFormatter(logging.Formatter):
    """Whatever gets into a record, a client can't write lines or colours of its own into the log."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(escaped(line) for line in super().format(record).split("\n"))
