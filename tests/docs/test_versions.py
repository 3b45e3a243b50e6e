"""The versions that pyproject.toml allows are those that tests/matrix.py tests, and the README names no others."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    spec = importlib.util.spec_from_file_location("version_matrix", ROOT / "tests" / "matrix.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_the_ranges_are_what_was_tested(matrix: ModuleType, name: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (asked,) = re.findall(rf'"({name}[<>=][^"]*)"', text)
    assert asked == matrix.requirement(name)


def test_every_end_meets_every_end(matrix: ModuleType) -> None:
    assert len(set(matrix.pairs())) == 4
    for name in ("torch", "transformers"):
        assert matrix.numbers(matrix.LOWEST[name]) < matrix.numbers(matrix.HIGHEST[name])


def test_what_runs_here_is_in_the_ranges(matrix: ModuleType) -> None:
    """Else the suite tests what nobody gets."""
    import torch
    import transformers

    for name, version in (("torch", torch.__version__), ("transformers", transformers.__version__)):
        below_end = matrix.numbers(version)[:2] <= matrix.numbers(matrix.HIGHEST[name])[:2]
        assert matrix.numbers(matrix.LOWEST[name]) <= matrix.numbers(version) and below_end, (name, version)


def test_the_readme_says_where(matrix: ModuleType) -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    for name in ("torch", "transformers"):
        lowest, highest = (".".join(end[name].split(".")[:2]) for end in (matrix.LOWEST, matrix.HIGHEST))
        assert f"{name} {lowest} to {highest}" in text
    assert "[tests/matrix.py](tests/matrix.py)" in text


def test_a_pair_that_fails_fails_the_command(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {"passed (9 passed)": 0, "failed (1 failed)": 1, "can't be installed: torch==2.8.0": 1}
    for result, code in ends.items():
        monkeypatch.setattr(matrix, "run", lambda *_, result=result: result)
        assert matrix.main([]) == code
        shown = capsys.readouterr().out.splitlines()
        assert len(shown) == 4 and all(line.endswith(result) for line in shown)


def test_one_pair_in_an_environment_of_its_own(
    matrix: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of one pair, with a Python that notes what it is asked."""
    called = tmp_path / "called"
    python = tmp_path / "torch-2.99.0" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {called}\necho "7 passed"\n')
    python.chmod(0o755)
    assert matrix.run(tmp_path, "2.99.0", "5.99.0") == "passed (7 passed)"
    first, second, third, tests = called.read_text().splitlines()
    assert first.endswith("torch==2.99.0") and "torch==2.99.0 transformers==5.99.0" in second
    assert "pytest>=8" in second and "soxr>=0.5" in second
    assert third.endswith(f"--no-deps --editable {ROOT}")
    assert tests.startswith("-m pytest") and tests.endswith(" ".join(matrix.QUICK))
    assert all((ROOT / path).exists() for path in matrix.QUICK)
    assert sys.executable != str(python)
