"""The versions of torch and transformers that are supported, and one command that tests both ends of each range.

    python tests/matrix.py           # or `make matrix`: an environment per torch, a quick part of the suite per pair
    python tests/matrix.py --list    # the pairs

The ranges are pyproject.toml's (tests/docs/test_versions.py compares): `LOWEST` and `HIGHEST` are the ends, and what
lies beyond is said in `BEYOND`. Environments are kept in the cache folder; on Linux x86-64 PyPI's torch is a CUDA
build, 5 GB each, so set PIP_EXTRA_INDEX_URL to an index of CPU builds where one is at hand.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOWEST = {"torch": "2.8.0", "transformers": "5.1.0"}
HIGHEST = {"torch": "2.14.1", "transformers": "5.24.0"}
# Versions just outside that were tried, and what happened.
BEYOND = {
    "torch 2.7.1": "3 of 72 tests of the backend fail: KeyError 'val' for constants in a graph, writes in place",
    "transformers 5.0.0": "its speech pipeline fails on the shipped checkpoint with KeyError 'num_frames'",
}
# Transcripts through Hugging Face's pipeline and the command line, every op through torch.compile: minutes per pair.
QUICK = (
    "tests/speech/test_pipeline.py",
    "tests/speech/test_checkpoint.py",
    "tests/backend",
    "tests/cli",
)


def pairs() -> list[tuple[str, str]]:
    """(torch, transformers), every end with every end; those of one torch follow each other."""
    return list(itertools.product(*((LOWEST[name], HIGHEST[name]) for name in ("torch", "transformers"))))


def numbers(version: str) -> tuple[int, ...]:
    """`2.13.0+cpu` -> (2, 13, 0)."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3])


def requirement(name: str) -> str:
    """The range as pyproject.toml has it: from the lowest that was tested, below the next minor release."""
    major, minor, _ = numbers(HIGHEST[name])
    lowest = LOWEST[name].removesuffix(".0")
    return f"{name}>={lowest},<{major}.{minor + 1}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--list", action="store_true", help="print the pairs and what lies beyond, run nothing"
    )
    parser.add_argument("--torch", help="only with this version")
    parser.add_argument("--transformers", help="only with this version")
    parser.add_argument("--cache", type=Path, help="where environments go instead of the cache folder")
    chosen = parser.parse_args(arguments)
    asked = (chosen.torch, chosen.transformers)
    # A version that is asked for may be another than an end.
    found = list(dict.fromkeys(tuple(a or p for a, p in zip(asked, pair, strict=True)) for pair in pairs()))
    if chosen.list:
        print("\n".join(f"torch {torch}, transformers {transformers}" for torch, transformers in found))
        print("\n".join(f"not {version}: {reason}" for version, reason in BEYOND.items()))
        return 0
    cache = chosen.cache or _cache()
    results = {pair: run(cache, *pair) for pair in found}
    print("\n".join(f"torch {t}, transformers {f}: {result}" for (t, f), result in results.items()))
    return int(any(not result.startswith("passed") for result in results.values()))


def run(cache: Path, torch: str, transformers: str) -> str:
    """`passed (pytest's last line)`, or what went wrong."""
    python = cache / f"torch-{torch}" / "bin" / "python"
    if not python.exists():
        venv.create(python.parent.parent, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    both = [f"torch=={torch}", f"transformers=={transformers}"]
    # torch first and alone: its requirement decides which build comes. This package last and without its
    # requirements, so that versions beyond its ranges can be tried.
    for wanted in (both[:1], [*both, *_others()], ["--no-deps", "--editable", str(ROOT)]):
        if subprocess.run([*install, *wanted]).returncode:
            return f"can't be installed: {' '.join(wanted)}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *QUICK]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no output"
    return f"{'failed' if done.returncode else 'passed'} ({last})"


def _others() -> list[str]:
    """What pyproject.toml asks for beside the two."""
    text = (ROOT / "pyproject.toml").read_text()
    blocks = [
        re.search(rf"^{name} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        for name in ("dependencies", "dev")
    ]
    asked = [
        one for block in blocks if block for one in re.findall(r'^    "([^"]+)"', block[1], re.MULTILINE)
    ]
    return [one for one in asked if one.split(">=")[0] not in LOWEST]  # tomllib came with Python 3.11


def _cache() -> Path:
    chosen = os.environ.get("TORCH_XDNA_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return Path(chosen or Path.home() / ".cache") / "torch-xdna-matrix"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
