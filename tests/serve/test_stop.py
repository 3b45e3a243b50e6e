"""SIGTERM: what runs is finished, the rest refused, the exit code is 0; twice: at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from scripted import tone
from servers import Asking, Process, soon

HERE = Path(__file__).parent


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """A server whose engine takes 0.5 s for a window, one at a time."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parents[1]}")
    found = Process(tmp_path, module="slow_server")
    yield found
    found.process.kill()
    found.process.wait()


def asking(server: Process, seconds: float, **fields: str) -> Asking:
    files = {"file": ("a.wav", tone(440, seconds))}
    return Asking(lambda: requests.post(server.address + "/inference", files=files, data=fields, timeout=30))


def begun(server: Process) -> int:
    return requests.get(server.address + "/health", timeout=9).json()["queue"]["begun"]


def test_once(slow: Process) -> None:
    running = asking(slow, 25)  # three windows
    soon(lambda: begun(slow) == 1)
    waiting = [asking(slow, 1) for _ in range(3)]
    soon(lambda: requests.get(slow.address + "/health", timeout=9).json()["queue"]["jobs"] >= 3)
    uploading = requests.Session()
    never_ends = threading.Event()

    def body():
        yield b"--x\r\n"
        never_ends.wait(20)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    still = Asking(
        lambda: uploading.post(slow.address + "/inference", data=body(), headers=headers, timeout=30)
    )
    soon(lambda: requests.get(slow.address + "/health", timeout=9).json()["queue"]["admitted"] == 5)
    slow.process.send_signal(signal.SIGTERM)
    soon(lambda: "SIGTERM" in slow.log)
    answers = [w.answer() for w in waiting]
    never_ends.set()
    assert running.answer().json()["text"].split() == ["440"] * 3
    assert [a.status_code for a in answers].count(503) >= 2  # one may have had its turn just before
    refused = next(a for a in answers if a.status_code == 503)
    assert "stopping" in refused.json()["error"] and refused.headers["retry-after"]
    assert still.status_or_nothing() in (503, None)
    with pytest.raises(requests.ConnectionError):
        requests.get(slow.address + "/health", timeout=9)
    assert slow.process.wait(20) == 0
    assert "Traceback" not in slow.log, slow.log


def test_twice(slow: Process) -> None:
    running = asking(slow, 95)
    soon(lambda: begun(slow) == 1)
    for _ in range(2):
        slow.process.send_signal(signal.SIGINT)
        soon(lambda: "SIGINT" in slow.log)
    assert slow.process.wait(10) == 0
    assert running.status_or_nothing() in (503, None)
    assert "Traceback" not in slow.log, slow.log
