"""All of benchmarks/results by one command: `python benchmarks/tables.py [--quick] [--only encoder coverage ...]`.

Measured parts come first and want a machine that does nothing else (about ten minutes on two cores), then the
modelled ones. Every part writes its files when it is done, and one that fails does not stop the next. `--quick` tries
everything on little, in about three minutes, and writes to build/results.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
KINDS = ("encoder", "layers", "coverage", "modelled")
QUICK = HERE.parent / "build" / "results"
# modelled.py knows one folder; a quick run must not write there.
MODELLED_QUICK = """
import pathlib, sys, modelled
modelled.RESULTS = pathlib.Path(sys.argv[1])
sys.exit(modelled.main(["--quick"]))
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    args = parser.parse_args(arguments)
    parts = [part for part in (quick() if args.quick else full()) if part[0].split()[0] in args.only]
    failed, began = [], time.monotonic()
    for number, (title, *command) in enumerate(parts, 1):
        minutes = (time.monotonic() - began) / 60
        print(f"[{number}/{len(parts)}] {title}, {minutes:.1f} min so far", flush=True)
        if subprocess.run([sys.executable, *command], cwd=HERE).returncode:
            failed.append(title)
    print(
        f"{len(parts) - len(failed)} of {len(parts)} parts done in {(time.monotonic() - began) / 60:.1f} min"
    )
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def full() -> list[tuple[str, ...]]:
    """(title, argument of the interpreter, ...): the title's first word is what --only names."""
    rounds = {"tiny": "9", "base": "11", "small": "3"}
    encoders = [
        (f"encoder {size}", "encoder.py", "--size", size, "--rounds", n) for size, n in rounds.items()
    ]
    return [
        *encoders,
        ("layers base", "layers.py", "--size", "base"),
        ("coverage", "coverage.py"),
        ("modelled", "modelled.py"),
    ]


def quick() -> list[tuple[str, ...]]:
    out = ("--out", str(QUICK))
    return [
        ("encoder tiny", "encoder.py", "--size", "tiny", "--rounds", "2", *out),
        ("layers tiny", "layers.py", "--size", "tiny", "--quick", *out),
        ("coverage of two", "coverage.py", "--only", "BERT base", "ViT", *out),
        ("modelled (closed form)", "-c", MODELLED_QUICK, str(QUICK)),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
