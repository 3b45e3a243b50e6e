"""Builds the overlay's xclbin on a user's machine: kernels with Peano, then mlir-aie's aiecc over the printed
MLIR.

The target appears whole or not at all: everything is made in a folder beside it, checked, and renamed. A
stamp beside the target holds the hash of all that went in (MLIR, kernel sources, options, tool versions) and
of the file, so an unchanged overlay is not built again and a damaged file is.

Design notes: aiecc takes the same options as Python script (1.2 and before), as C++ program (1.3) and as
declarative driver (2026), so one command line serves all of them. The kernel's name in the xclbin carries the
overlay's fingerprint; it is given by the caller and must be found in the result. Neither aiecc nor Peano was ever run
by this project: the tests use stand-ins. What was run are mlir-aie's passes before the core compiler, see
`lowering.overlay.mlir`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kernels_xdna1 import build as kernel_build
from lowering.overlay.description import overlay
from lowering.overlay.mlir import print_mlir

OLDEST_MLIR_AIE = (1, 3)
KNOWN_MLIR_AIE = ("1.3", "1.4")  # series whose options and syntax this was written for
# Buffers one after another: the linker puts the kernels' constants behind the last one, where spreading them over the
# banks (the default) leaves no room.
OPTIONS = (
    "--aie-generate-xclbin",
    "--no-compile-host",
    "--no-xchesscc",
    "--no-xbridge",
    "--alloc-scheme=basic-sequential",
)
SCRATCH = ".overlay-build-"  # folders of builds in progress, beside the target
_MAGIC, _LENGTH_AT = b"xclbin2\0", 304


class BuildError(RuntimeError):
    """The overlay can't be built; one sentence: what is missing or wrong, and the remedy."""


@dataclass(frozen=True)
class Tools:
    """What a build needs. `notes`: sentences the user should see, for instance an unknown version."""

    aiecc: Path
    peano: Path
    mlir_aie_version: str
    peano_version: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    path: Path
    cached: bool
    seconds: float


def build(
    columns: int,
    target: Path,
    kernel_name: str,
    *,
    report: Callable[[str], None] = print,
    force: bool = False,
) -> Built:
    """Build `target` unless it is there already. Raises `BuildError`; then `target` is what it was before."""
    start = time.monotonic()
    tools = find_tools()
    for note in tools.notes:
        report(note)
    text = print_mlir(overlay(columns))
    key = content_key(text, kernel_name, tools)
    if not force and is_current(target, key):
        return Built(target, True, time.monotonic() - start)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=target.parent) as folder:
            made = _make(Path(folder), text, kernel_name, tools, report)
            stamp = {"key": key, "sha256": _sha256(made), "mlir_aie": tools.mlir_aie_version}
            (Path(folder) / "stamp").write_text(json.dumps(stamp))
            stamp_path(target).unlink(missing_ok=True)
            os.replace(made, target)
            os.replace(Path(folder) / "stamp", stamp_path(target))
    except OSError as error:
        raise BuildError(_disk_sentence(error, target)) from error
    return Built(target, False, time.monotonic() - start)


def find_tools() -> Tools:
    """Locate aiecc, Peano and xclbinutil. Raises `BuildError` with one sentence per missing part."""
    missing: list[str] = []
    aiecc = _aiecc()
    if aiecc is None:
        missing.append(
            "aiecc was not found on the PATH or in an installed mlir_aie: install the mlir_aie wheel, version 1.3 or "
            "newer, from https://github.com/Xilinx/mlir-aie/releases"
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
    version = _mlir_aie_version(aiecc)
    return Tools(
        aiecc,
        Path(os.environ["PEANO_INSTALL_DIR"]),
        version,
        next(iter(_lines([str(kernel_build.find_compiler()), "--version"])), "unknown"),
        _version_notes(version),
    )


def content_key(mlir: str, kernel_name: str, tools: Tools) -> str:
    """Hash of everything that decides what comes out."""
    digest = hashlib.sha256()
    parts = [mlir, kernel_name, tools.mlir_aie_version, tools.peano_version, *OPTIONS, *kernel_build.FLAGS]
    for source in sorted((kernel_build.HERE / "kernels").iterdir()):
        parts += [source.name, source.read_text()]
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def is_current(target: Path, key: str) -> bool:
    """Whether `target` was built from this very content and is undamaged."""
    try:
        stamp = json.loads(stamp_path(target).read_text())
        return stamp["key"] == key and stamp["sha256"] == _sha256(target)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def stamp_path(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def remove_abandoned(folder: Path) -> None:
    """Remove what builds left behind that were killed: scratch folders that nobody touched for an hour."""
    for left in folder.glob(SCRATCH + "*"):
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)


def _make(folder: Path, mlir: str, kernel_name: str, tools: Tools, report: Callable[[str], None]) -> Path:
    """Compile in `folder`; returns the checked xclbin."""
    source, result = folder / "overlay.mlir", folder / "overlay.xclbin"
    source.write_text(mlir)
    report("1/3 compiling the kernels with Peano")
    try:
        kernel_build.build(folder)
    except (kernel_build.MissingTools, kernel_build.TooLarge) as error:
        raise BuildError(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise BuildError(
            f"Peano could not compile the kernels (exit code {error.returncode}): its messages are above; a Peano "
            "release of the same time as mlir-aie should"
        ) from error
    report("2/3 building the overlay with aiecc (one to two minutes)")
    command = [str(tools.aiecc), *OPTIONS, "--peano", str(tools.peano)]
    command += [f"--xclbin-name={result}", f"--xclbin-kernel-name={kernel_name}", source.name]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if run.returncode:
        raise BuildError(_failure_sentence(run))
    report("3/3 checking the xclbin")
    check_xclbin(result, kernel_name)
    return result


def check_xclbin(path: Path, kernel_name: str) -> None:
    """Raise `BuildError` unless the file is a whole xclbin with that kernel."""
    content = path.read_bytes() if path.is_file() else b""
    if not content:
        raise BuildError(
            "aiecc ended well but wrote no xclbin: run it by hand on `python -m lowering.overlay --mlir`"
        )
    length = struct.unpack_from("<Q", content, _LENGTH_AT)[0] if len(content) >= _LENGTH_AT + 8 else 0
    if not content.startswith(_MAGIC) or length != len(content):
        raise BuildError(
            f"aiecc wrote {len(content)} bytes that are no whole xclbin (its header says {length}): free disk space "
            "and try again"
        )
    if kernel_name.encode() not in content:
        raise BuildError(
            f"aiecc's xclbin has no kernel named {kernel_name}: this mlir-aie ignores --xclbin-kernel-name, use 1.3 "
            "or newer"
        )


def _failure_sentence(run: subprocess.CompletedProcess[str]) -> str:
    if run.returncode < 0:
        return (
            f"aiecc was ended by signal {-run.returncode}: memory may have run out, free some and try again"
        )
    lines = [line.strip() for line in (run.stderr + run.stdout).splitlines() if line.strip()]
    first = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no message")
    if os.strerror(errno.ENOSPC) in run.stderr + run.stdout:
        return f"aiecc ran out of disk space ({first}): free some and try again"
    return f"aiecc failed with exit code {run.returncode}: {first}"


def _disk_sentence(error: OSError, target: Path) -> str:
    if error.errno == errno.ENOSPC:
        return f"no space is left for the overlay in {target.parent}: free some and try again"
    return f"the overlay can't be written to {target.parent} ({error.strerror}): choose another place with --output"


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


def _version_notes(version: str) -> tuple[str, ...]:
    found = re.match(r"v?(\d+)\.(\d+)", version)
    known = ", ".join(KNOWN_MLIR_AIE)
    if found is None:
        return (f"mlir-aie does not tell its version; this was written for {known}",)
    if (int(found[1]), int(found[2])) < OLDEST_MLIR_AIE:
        raise BuildError(
            f"mlir-aie {version} is too old: install 1.3 or newer (this was written for {known})"
        )
    if f"{found[1]}.{found[2]}" not in KNOWN_MLIR_AIE:
        return (f"mlir-aie {version} is none of the versions that this was written for ({known})",)
    return ()


def _lines(command: list[str]) -> list[str]:
    """What a tool says, or nothing."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return (run.stdout or run.stderr).splitlines()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
