"""Who may ask, and what a client can't do to the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import requests
from click.testing import CliRunner
from scripted import tone
from servers import Running, soon

from torch_xdna.cli import cli
from torch_xdna.errors import XdnaError
from torch_xdna.serve.guard import Access, EscapingFormatter

Start = Callable[..., Running]


def test_key(start: Start) -> None:
    server = start(Access(key="sesame"))
    for shown in (
        {},
        {"authorization": "Bearer sesam"},
        {"authorization": "sesame"},
        {"authorization": "Bearer é"},
    ):
        headers = {name: value.encode("latin-1") for name, value in shown.items()}
        answer = server.ask(tone(440), headers=headers)
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        assert requests.get(server.address + "/metrics", headers=headers, timeout=9).status_code == 401
        assert requests.get(server.address + "/v1/models", headers=headers, timeout=9).status_code == 401
    assert not server.engine.batches
    assert server.health() == {"status": "ok"}  # no more than that without a key
    right = {"authorization": "Bearer sesame"}
    assert server.ask(tone(440), headers=right).json()["text"] == "440"
    assert "model" in requests.get(server.address + "/health", headers=right, timeout=9).json()
    assert requests.get(server.address + "/", timeout=9).status_code == 200


def test_keys_are_compared_in_constant_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing over HTTP shows nothing either way; what can be held is that nothing but compare_digest looks."""
    import hmac

    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    server = start(Access(key="sesame"))
    server.ask(tone(440), headers={"authorization": "Bearer s"})
    server.ask(tone(440))
    assert compared == [(b"s", b"sesame"), (b"", b"sesame")]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "a b"])
def test_names_of_others(start: Start, host: str) -> None:
    """A page that calls loopback by a name of its own (DNS rebinding)."""
    server = start()
    assert server.ask(tone(440), headers={"host": host}).status_code in (400, 421)
    assert not server.engine.batches


def test_pages_of_others(start: Start) -> None:
    server = start(Access(origins=("https://good.example",)))
    for origin in ("https://evil.example", "null", f"https://127.0.0.1:{server.port}.evil.example"):
        assert server.ask(tone(440), headers={"origin": origin}).status_code == 403
    assert not server.engine.batches
    answer = server.ask(tone(440), headers={"origin": "https://good.example"})
    assert answer.headers["access-control-allow-origin"] == "https://good.example"
    preflight = requests.options(
        server.address + "/v1/audio/transcriptions", headers={"origin": "https://good.example"}, timeout=9
    )
    assert (
        preflight.status_code == 200 and "authorization" in preflight.headers["access-control-allow-headers"]
    )
    assert server.ask(tone(440), headers={"origin": server.address}).status_code == 200


def test_paths_lead_nowhere(start: Start) -> None:
    server = start()
    for path in (
        "/../../etc/passwd",
        "/page.js/../app.py",
        "/%2e%2e/app.py",
        "/page/page.html",
        "//etc/passwd",
        "/docs",
    ):
        with server.connected() as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 404"), path
    answer = requests.get(server.address + "/v1/models/../../../etc/passwd%0a", timeout=9)
    assert answer.status_code == 404


def test_the_log_is_escaped(start: Start) -> None:
    server = start()
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    kept = Kept()
    kept.setFormatter(EscapingFormatter("%(message)s"))
    logger = logging.getLogger("torch_xdna.serve")
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    try:
        requests.get(server.address + "/a%0a2026 INFO forged%1b[31m%c3%a9%e2%80%ae", timeout=9)
        server.ask(tone(440), headers={"x-odd": "a\tb"}, model="\x1b[31m\nforged")
        soon(lambda: len(lines) == 2)  # a line is written when its answer has gone out
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
    assert lines[0].startswith("GET /a\\n2026 INFO forged\\x1b[31m\\xe9\\u202e 404")
    assert all(line.isascii() and line.isprintable() and "\x1b" not in line for line in lines)
    assert "forged" not in lines[1]


def refused(*options: str, **environment: str) -> str:
    result = CliRunner(env=environment).invoke(cli, ["serve", *options])
    assert isinstance(result.exception, XdnaError), (result.output, result.exception)
    return str(result.exception)


def test_an_open_address_needs_a_key(tmp_path) -> None:
    assert "there is no key" in refused("--host", "0.0.0.0", TORCH_XDNA_API_KEY="")
    assert "there is no key" in refused("--host", "::", TORCH_XDNA_API_KEY=" ")
    (tmp_path / "empty").write_text("\n")
    assert "is empty" in refused("--host", "0.0.0.0", "--api-key-file", str(tmp_path / "empty"))
    assert "can't be read" in refused("--api-key-file", str(tmp_path / "gone"))


def test_an_address_in_use(start: Start) -> None:
    server = start()
    assert "can't be listened on" in refused("--port", str(server.port))
    assert "can't be listened on" in refused("--host", "no.such.host.invalid", "--without-key", "--port", "0")
