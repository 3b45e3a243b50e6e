"""Servers for the tests, where what they need is installed (the extras `serve` and `dev`)."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "requests", "openai")
collect_ignore_glob = ["test_*"] if any(importlib.util.find_spec(name) is None for name in _NEEDED) else []


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Servers with limits and access as given."""
    from scripted import Scripted
    from servers import Running

    from torch_xdna.serve.guard import Access
    from torch_xdna.serve.limits import Limits

    running: list[Any] = []
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def begin(access: Any = None, **limits: Any) -> Any:
        folder = tmp_path / f"uploads{len(running)}"
        folder.mkdir()
        chosen = Limits(**{"folder": str(folder), "grace_seconds": 5.0, **limits})
        running.append(Running(Scripted(), chosen, access or Access(), folder))
        return running[-1]

    with warnings.catch_warnings():
        yield begin
    for one in running:
        one.end()
        assert not list(one.folder.iterdir())


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The shipped model on the emulator."""
    from servers import Process

    found = Process(tmp_path_factory.mktemp("serve"), "--device", "emulator")
    yield found
    code = found.stop()
    assert code == 0 and "Traceback" not in found.log, found.log
