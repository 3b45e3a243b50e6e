"""The API pages build without a warning, and every public name says what a caller must know."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import documents
import pytest

ROOT = documents.ROOT
# What type and name say already, on a device, a report or a program.
CLEAR = {"self", "cls", "args", "kwargs", "memo"}


def api() -> Any:
    spec = importlib.util.spec_from_file_location("api_pages", ROOT / "docs" / "api.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public() -> Iterator[tuple[str, Any, str]]:
    """(name, object, the docstring to look in): functions, classes, their methods and properties."""
    pages = api()
    for name in pages.MODULES:
        module = importlib.import_module(name)
        for key in pages.names(module):
            value = getattr(module, key)
            if inspect.isfunction(value) or inspect.isclass(value):
                yield f"{name}.{key}", value, inspect.getdoc(value) or ""
            if inspect.isclass(value):
                for member, found in vars(value).items():
                    function = (
                        found.fget if isinstance(found, property) else getattr(found, "__func__", found)
                    )
                    if not member.startswith("_") and inspect.isfunction(function):
                        whole = f"{inspect.getdoc(function) or ''}\n{inspect.getdoc(value) or ''}"
                        yield f"{name}.{key}.{member}", function, whole if function.__doc__ else ""


def test_pages_build_without_a_warning(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "docs/api.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:]
    pages = api().MODULES
    for name in pages:
        text = (tmp_path / f"{name.replace('.', '/')}.html").read_text()
        absent = [key for key in api().names(importlib.import_module(name)) if f'id="{key}"' not in text]
        assert not absent, (name, absent)
    links = re.findall(r'href="([\w./]+\.html)', (tmp_path / "index.html").read_text())
    assert len(set(links)) >= len(pages) and all((tmp_path / link).exists() for link in links)


def test_every_public_name_has_a_docstring() -> None:
    found = list(public())
    assert len(found) > 60
    assert [name for name, _, text in found if not text] == []


def test_docstrings_name_the_parameters() -> None:
    """Of functions: what a parameter is, where its name is not in the docstring's words already."""
    missing = []
    for name, value, text in public():
        if inspect.isfunction(value):
            asked = [
                p for p in inspect.signature(value).parameters if p not in CLEAR and not p.startswith("_")
            ]
            words = set(re.findall(r"\w+", text))
            missing += [f"{name}({p})" for p in asked if not {p, p.rstrip("s"), f"{p}s"} & words]
    assert missing == []


def test_docstrings_name_the_errors() -> None:
    """Whatever a public function raises by itself is in its docstring, or in that of its class."""
    missing = []
    for name, value, text in public():
        if inspect.isfunction(value):
            tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
            errors = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise)]
            raised = {ast.unparse(e.func) for e in errors if isinstance(e, ast.Call)}
            missing += [f"{name}: {error}" for error in raised if not re.search(rf"\b{error}\b", text)]
    assert missing == []


@pytest.mark.parametrize("name", ["Settings", "Report"])
def test_fields_of_the_dataclasses_are_described(name: str) -> None:
    import torch_xdna

    cls = getattr(torch_xdna, name)
    assert is_dataclass(cls)
    text = inspect.getdoc(cls) or ""
    assert [f for f in cls.__dataclass_fields__ if not re.search(rf"\b{f}\b", text)] == []
