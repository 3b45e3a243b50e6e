"""ARCHITECTURE.md and CONTRIBUTING.md against the code: folders, names, the picture, and who imports whom."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import documents
import pytest

ROOT = documents.ROOT
PACKAGES = ("torch_xdna", "lowering", "kernels_xdna1")
PLACE = re.compile(r"`([\w./]+\.(?:py|hpp|cc)):(\w+)(?:\.(\w+))?`")  # `folder/module.py:name`


def folders() -> set[str]:
    """Every folder of the packages that holds files of the repository."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".so", ".pyc"):
                found |= {
                    p.relative_to(ROOT).as_posix() for p in path.parents if p.is_relative_to(ROOT / package)
                }
    return found


def map_lines() -> list[str]:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text.partition("## The map\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ") and "---" not in line][1:]


def test_the_map_has_every_folder_and_no_other() -> None:
    named = {
        name
        for line in map_lines()
        for name in re.findall(r"[\w/]+", re.sub(r"\([^)]*\)", "", line.split("|")[1]))
    }
    assert named == folders()


def defined(path: Path) -> set[str]:
    """Names at the top of a Python module and those of its classes; every word of another file."""
    if path.suffix != ".py":
        return set(re.findall(r"\w+", path.read_text()))
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        body = [node, *node.body] if isinstance(node, ast.ClassDef) else [node]
        for part in body:
            if isinstance(part, (ast.FunctionDef, ast.ClassDef)):
                found.add(part.name)
            targets = part.targets if isinstance(part, ast.Assign) else [getattr(part, "target", None)]
            found |= {t.id for t in targets if isinstance(t, ast.Name)}
    return found


def places() -> Iterator[tuple[str, str, str]]:
    for document in documents.documents():
        yield from PLACE.findall(document.read_text())


def test_named_places_exist() -> None:
    gone = []
    for file, *names in places():
        path = ROOT / file
        if not path.exists() or not set(filter(None, names)) <= defined(path):
            gone.append(f"{file}:{'.'.join(filter(None, names))}")
    assert not gone
    assert len(list(places())) > 30


def test_files_named_in_the_text_exist() -> None:
    """`folder/module.py` without a name, in every document."""
    gone = []
    for document in documents.documents():
        for span in re.findall(
            r"`((?:torch_xdna|lowering|kernels_xdna1|tests|docs|benchmarks)/[\w./]+)`", document.read_text()
        ):
            if not (ROOT / span).exists():
                gone.append(f"{document.name}: {span}")
    assert not gone


@pytest.fixture(scope="module")
def picture():
    spec = importlib.util.spec_from_file_location("architecture_picture", ROOT / "docs" / "picture.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_picture_is_fresh_and_shows_folders_that_exist(picture) -> None:
    drawn = (ROOT / "docs" / "architecture.svg").read_text()
    assert drawn == picture.draw(), "run `python docs/picture.py > docs/architecture.svg`"
    assert all((ROOT / box.folder).exists() for box in picture.BOXES.values())


def lint_imports(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_no_import_runs_up_or_in_a_circle() -> None:
    """The contracts of pyproject.toml: packages, stages, devices, no circle within a folder, torch in one package."""
    run = lint_imports()
    assert run.returncode == 0, run.stdout[-4000:]
    contracts = (ROOT / "pyproject.toml").read_text().count("[[tool.importlinter.contracts]]")
    assert f"{contracts} kept, 0 broken" in run.stdout and contracts >= 5


def test_an_arrow_back_up_would_be_found(tmp_path: Path) -> None:
    """The same tool with one layer upside down: it does see the imports."""
    asked = tmp_path / "importlinter.ini"
    asked.write_text(
        "[importlinter]\nroot_package = torch_xdna\n\n"
        "[importlinter:contract:1]\nname = upside down\ntype = layers\n"
        "layers =\n    torch_xdna.kernels_xdna1\n    torch_xdna.lowering\n"
    )
    run = lint_imports("--config", str(asked))
    assert (
        run.returncode == 1
        and "torch_xdna.lowering.limits -> torch_xdna.kernels_xdna1.contract" in run.stdout
    )


def test_the_files_to_touch_for_an_op_are_those_of_gelu() -> None:
    """CONTRIBUTING.md's table is what an op of this kind did touch; no file that lists ops is left out."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition("## Add an op\n")[2].partition("\n## ")[0]
    rows = {
        m
        for line in section.splitlines()
        if line.startswith("| `")
        for m in re.findall(r"^\| `([\w./]+)`", line)
    }
    assert len(rows) > 12
    assert [path for path in rows if "gelu" not in (ROOT / path).read_text().lower()] == []
    named = {path for path, *_ in PLACE.findall(section)} | set(re.findall(r"`([\w./]+\.\w+)`", section))
    lists_ops = re.compile(r"\b(Softmax|softmax)\b.*\b(Gelu|gelu)\b|\b(Gelu|gelu)\b.*\b(Add|Softmax)\b")
    listing = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if any(lists_ops.search(line) for line in code_lines(path))
    }
    assert listing - named - ONLY_NAMES == set()


# Files that name row ops for a reader's sake alone: unions of types, what a kernel does or took, colours of a picture.
ONLY_NAMES = {
    "kernels_xdna1/cycles.py",
    "kernels_xdna1/description.py",
    "torch_xdna/devices/emulator/chunk_plan.py",
    "torch_xdna/profile/pictures.py",
}


def code_lines(path: Path) -> list[str]:
    """Without docstrings, comments and imports."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Module):
            node.body = [n for n in node.body if not isinstance(n, (ast.Import, ast.ImportFrom))]
    return ast.unparse(tree).splitlines()


def test_pre_commit_runs_what_make_lint_runs() -> None:
    yaml = pytest.importorskip("yaml")
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    programs = re.findall(r"\$\(BIN\)/([\w-]+(?: (?:check|format))?)", lint)
    assert [
        hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in hooks
    ] == programs


def test_the_page_of_the_tests_has_every_folder() -> None:
    text = (ROOT / "tests" / "README.md").read_text()
    folders_of_tests = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert {name for name in folders_of_tests if f"]({name})" not in text} == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
