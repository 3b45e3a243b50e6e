"""The tools of a build: aiecc, Peano and xclbinutil, their versions, and how this aiecc wants to be called.

aiecc has two command lines. The Python script and the first C++ tool take `--aie-generate-xclbin --no-xchesscc ...`;
the tool of August 2026 (mlir-aie 1.4, read in tools/aiecc/CommandLineOptions.h) wants `--get-xclbin`, knows none of the
`--no-` options and takes what they meant for granted. Which one it is, its help says; it was not run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from torch_xdna.kernels_xdna1 import peano_build as kernel_build
from torch_xdna.lowering.overlay import toolchain
from torch_xdna.lowering.overlay.toolchain import MLIR_AIE, PEANO, Verdict, judge

# Buffers one after another: the linker puts the kernels' constants behind the last one, where spreading them over the
# banks (the default) leaves no room.
_ALLOCATION = "--alloc-scheme=basic-sequential"
OPTIONS = ("--aie-generate-xclbin", "--no-compile-host", "--no-xchesscc", "--no-xbridge", _ALLOCATION)
OPTIONS_SINCE_AUGUST = ("--get-xclbin", "--get-core-elfs", _ALLOCATION)


class BuildError(RuntimeError):
    """The overlay can't be built; one sentence: what is missing or wrong, and the remedy."""


@dataclass(frozen=True)
class Tools:
    """What a build needs. `notes`: sentences the user should see. `kernel_flags`: flags that this Peano needs and
    takes. `options`: aiecc's."""

    aiecc: Path
    peano: Path
    versions: dict[str, str]
    compiler: str  # its first line about itself
    options: tuple[str, ...]
    kernel_flags: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_tools(any_toolchain: bool = False) -> Tools:
    """Locate aiecc, Peano and xclbinutil. Raises `BuildError` with one sentence per missing part, and for versions
    known to be bad unless `any_toolchain`."""
    missing: list[str] = []
    aiecc = _aiecc()
    if aiecc is None:
        missing.append(
            f"aiecc was not found on the PATH or in an installed mlir_aie: install mlir_aie "
            f"{toolchain.RECOMMENDED[MLIR_AIE]} from {toolchain.RELEASES[MLIR_AIE]}"
        )
    for find in (kernel_build.find_compiler, kernel_build.find_headers):
        try:
            find()
        except kernel_build.MissingTools as error:
            missing.append(str(error))
    if not (shutil.which("xclbinutil") or Path("/opt/xilinx/xrt/bin/xclbinutil").exists()):
        missing.append(
            "xclbinutil was not found, which aiecc needs: install XRT's base package and put it on the PATH"
        )
    if missing:
        raise BuildError("; ".join(missing))
    assert aiecc is not None
    compiler = kernel_build.find_compiler()
    peano = Path(os.environ["PEANO_INSTALL_DIR"])
    versions = {MLIR_AIE: _mlir_aie_version(aiecc), PEANO: toolchain.installed_version(peano.parent, PEANO)}
    notes = _judged([judge(tool, version) for tool, version in versions.items()], any_toolchain)
    flags: tuple[str, ...] = ()
    if kernel_build.accepts(compiler, kernel_build.NO_FOLDING):
        flags = kernel_build.NO_FOLDING
    elif toolchain.may_fold_immediates(versions[PEANO]):
        notes += (
            f"Peano {versions[PEANO]} takes no {kernel_build.NO_FOLDING[-1]}: it either folds no immediates or "
            "can't be kept from it, which gives wrong numbers; hold the selftest's results to the emulator's",
        )
    return Tools(
        aiecc,
        peano,
        versions,
        next(iter(_lines([str(compiler), "--version"])), "unknown"),
        _options(aiecc),
        flags,
        notes,
    )


def _judged(verdicts: list[Verdict], any_toolchain: bool) -> tuple[str, ...]:
    bad = [v.sentence for v in verdicts if v.status == "bad"]
    if bad and not any_toolchain:
        raise BuildError(f"{'; '.join(bad)}, or build with it all the same: --any-toolchain")
    return tuple(v.sentence for v in verdicts if v.status in ("bad", "unknown"))


def _options(aiecc: Path) -> tuple[str, ...]:
    """What to call this aiecc with: the older options unless its help knows only the newer ones."""
    said = "\n".join(_lines([str(aiecc), "--help"]))
    newer = "aie-generate-xclbin" not in said and ("get-" in said or "xclbin-kernel-name" in said)
    return OPTIONS_SINCE_AUGUST if newer else OPTIONS


def _aiecc() -> Path | None:
    places = [shutil.which(name) for name in ("aiecc", "aiecc.py")]
    roots = [os.environ.get("MLIR_AIE_INSTALL_DIR")]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        roots.append(str(importlib.metadata.distribution("mlir_aie").locate_file("mlir_aie")))
    places += [str(Path(root) / "bin" / name) for root in roots if root for name in ("aiecc", "aiecc.py")]
    return next((Path(p) for p in places if p and os.access(p, os.X_OK)), None)


def _mlir_aie_version(aiecc: Path) -> str:
    """Of the installed wheel, else what the tool says of itself."""
    try:
        return importlib.metadata.version("mlir_aie")
    except importlib.metadata.PackageNotFoundError:
        # One built from source tells LLVM's version, and of its own only a commit.
        own = [line for line in _lines([str(aiecc), "--version"]) if "aie" in line and "LLVM" not in line]
        found = re.search(r"\d+\.\d+(\.\d+)*", " ".join(own))
        return found[0] if found else "unknown"


def _lines(command: list[str]) -> list[str]:
    """What a tool says, or nothing."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return (run.stdout or run.stderr).splitlines()
