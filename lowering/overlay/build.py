"""Builds the overlay's xclbin on a user's machine: kernels with Peano, then mlir-aie's aiecc over the printed
MLIR, on one rung of the ladder (`lowering.overlay.ladder`) after another until the cores fit.

The target appears whole or not at all: everything is made in a folder beside it, checked, and renamed. The manifest
beside the target (`lowering.overlay.manifest`) holds the hash of all that went in (MLIR, kernel sources, options, tool
versions) and of the file, so an unchanged overlay is not built again and a damaged file is.

Design notes: the kernel's name in the xclbin carries the overlay's fingerprint, another one for each variant; it is
given by the caller and must be found in the result. Neither aiecc nor Peano was ever run by this project: the tests use
stand-ins. What was run are mlir-aie's passes before the core compiler, see `lowering.overlay.mlir`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch_xdna.kernels_xdna1 import peano_build as kernel_build
from torch_xdna.lowering.overlay import manifest as manifests
from torch_xdna.lowering.overlay import sizes
from torch_xdna.lowering.overlay.description import overlay
from torch_xdna.lowering.overlay.ladder import Rung, rungs
from torch_xdna.lowering.overlay.manifest import Manifest
from torch_xdna.lowering.overlay.mlir import print_mlir
from torch_xdna.lowering.overlay.tools import BuildError, Tools, find_tools
from torch_xdna.lowering.overlay.variants import FULL, Variant

__all__ = ["BuildError", "Built", "build", "find_tools"]

SCRATCH = ".overlay-build-"  # folders of builds in progress, beside the target
_MAGIC, _LENGTH_AT = b"xclbin2\0", 304
Naming = Callable[[Variant], str]


class DoesNotFit(BuildError):
    """A rung's cores are too large; the next one may fit."""


@dataclass(frozen=True)
class Built:
    path: Path
    cached: bool
    seconds: float
    manifest: Manifest


@dataclass(frozen=True)
class _Made:
    """A rung that fits: the checked xclbin, what its cores take, what people should know."""

    xclbin: Path
    cores: list[sizes.CoreSizes]
    notes: tuple[str, ...]


def build(
    columns: int,
    target: Path,
    name: Naming,
    *,
    report: Callable[[str], None] = print,
    force: bool = False,
    any_toolchain: bool = False,
    level: str = "-O2",
    largest: Variant = FULL,
) -> Built:
    """Build `target` unless it is there already. Raises `BuildError`; then `target` is what it was before.

    `name`: the kernel's name for a variant. `level`, `largest`: where the ladder begins. `any_toolchain`: also with
    versions known to be bad, and cores that compute with soft floats.
    """
    start = time.monotonic()
    tools = find_tools(any_toolchain)
    for note in tools.notes:
        report(note)
    ladder = rungs(level, largest)
    key = content_key(columns, name, tools, ladder)
    found = manifests.read(target)
    if not force and found is not None and found.key == key:
        return Built(target, True, time.monotonic() - start, found)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=target.parent) as folder:
            rung, made, failed = _climb(Path(folder), columns, name, tools, ladder, report, any_toolchain)
            manifest = Manifest(
                key=key,
                sha256=manifests.digest(made.xclbin),
                columns=columns,
                kernel=name(rung.variant),
                variant=rung.variant.name,
                ops=rung.variant.ops,
                kernels=rung.variant.kernels,
                versions=tools.versions,
                flags=(*rung.flags, *tools.kernel_flags),
                small=rung.small,
                sizes={c.core: {"code": c.code, "constants": c.constants} for c in made.cores},
                notes=(*tools.notes, *failed, *made.notes),
            )
            (Path(folder) / "manifest").write_text(manifest.text)
            manifests.path_of(target).unlink(missing_ok=True)
            os.replace(made.xclbin, target)
            os.replace(Path(folder) / "manifest", manifests.path_of(target))
    except OSError as error:
        raise BuildError(_disk_sentence(error, target)) from error
    return Built(target, False, time.monotonic() - start, manifest)


def content_key(columns: int, name: Naming, tools: Tools, ladder: Sequence[Rung]) -> str:
    """Hash of everything that decides what comes out."""
    digest = hashlib.sha256()
    parts = [
        *tools.versions.values(),
        tools.compiler,
        *tools.options,
        *tools.kernel_flags,
        *kernel_build.FLAGS,
    ]
    for rung in ladder:
        parts += [print_mlir(overlay(columns, rung.variant)), name(rung.variant), repr(asdict(rung))]
    for source in sorted((kernel_build.HERE / "kernels").iterdir()):
        parts += [source.name, source.read_text()]
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def remove_abandoned(folder: Path) -> None:
    """Remove what builds left behind that were killed: scratch folders that nobody touched for an hour."""
    for left in folder.glob(SCRATCH + "*"):
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)


def _climb(
    folder: Path,
    columns: int,
    name: Naming,
    tools: Tools,
    ladder: Sequence[Rung],
    report: Callable[[str], None],
    any_toolchain: bool,
) -> tuple[Rung, _Made, list[str]]:
    """The first rung that fits, what it made, and a sentence for each that did not."""
    failed: list[str] = []
    for number, rung in enumerate(ladder, 1):
        report(f"attempt {number} of {len(ladder)}: {rung}")
        place = folder / str(number)
        place.mkdir()
        try:
            made = _make(place, columns, name(rung.variant), tools, rung, report, any_toolchain)
            return rung, made, failed
        except DoesNotFit as error:
            failed.append(f"{rung}: {error}")
            report(f"does not fit: {error}")
    raise BuildError(
        f"no overlay fits, not even the smallest ({failed[-1]}): try another version of Peano "
        f"({tools.versions['Peano']} was used)"
    )


def _make(
    folder: Path,
    columns: int,
    kernel_name: str,
    tools: Tools,
    rung: Rung,
    report: Callable[[str], None],
    any_toolchain: bool,
) -> _Made:
    """Compile one rung in `folder`. Raises DoesNotFit, or BuildError if no other rung would help."""
    source, result = folder / "overlay.mlir", folder / "overlay.xclbin"
    source.write_text(print_mlir(overlay(columns, rung.variant)))
    report("1/3 compiling the kernels with Peano")
    notes = _compile(folder, tools, rung)
    report("2/3 building the overlay with aiecc (one to two minutes)")
    command = [str(tools.aiecc), *tools.options, f"--peano={tools.peano}"]
    command += [f"--xclbin-name={result}", f"--xclbin-kernel-name={kernel_name}", source.name]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if run.returncode:
        if too_large := sizes.overflow_message(run.stderr + run.stdout):
            raise DoesNotFit(too_large)
        raise BuildError(_failure_sentence(run))
    report("3/3 checking the xclbin and its cores")
    check_xclbin(result, kernel_name)
    cores = sizes.measure(folder.rglob("*.elf"))
    for core in cores:
        if core.overflow:
            raise DoesNotFit(core.overflow)
    if not cores:
        notes += ("aiecc left no linked cores to read, so their sizes are not checked",)
    notes += _library_calls(cores, any_toolchain)
    for note in notes:
        report(note)
    return _Made(result, cores, notes)


def _library_calls(cores: list[sizes.CoreSizes], any_toolchain: bool) -> tuple[str, ...]:
    """A sentence on those that the cores hold. Kernels' sources hold scalar floats as constants only, so soft floats
    are the compiler's making; the core's own loop may well divide its counters."""
    calls = sorted({call for core in cores for call in core.library_calls})
    if not calls:
        return ()
    said = f"the cores hold library calls ({', '.join(calls)}), which take over a hundred cycles each"
    if floats := [call for call in calls if sizes.is_soft_float(call)]:
        said += f": {', '.join(floats)} stand where a kernel should use the vector unit"
        if not any_toolchain:
            raise BuildError(
                f"{said}; take another version of Peano, or what this one makes with --any-toolchain"
            )
    return (said,)


def _compile(folder: Path, tools: Tools, rung: Rung) -> tuple[str, ...]:
    """Compile the kernels into `folder`; returns what people should know about their stack."""
    try:
        result = kernel_build.build(
            folder,
            optimise=(*rung.flags, *tools.kernel_flags),
            kernels=rung.variant.kernels,
            defines=rung.variant.defines,
            small=rung.small,
            control_bytes=0,  # the linked core decides
        )
    except kernel_build.TooLarge as error:
        raise DoesNotFit(str(error)) from error
    except kernel_build.MissingTools as error:
        raise BuildError(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise BuildError(
            f"Peano could not compile the kernels (exit code {error.returncode}): its messages are above; the "
            "recommended version should"
        ) from error
    usage = result.with_suffix(".su")
    if usage.is_file() and (sentence := sizes.stack_sentence(sizes.stack_use(usage.read_text()))):
        raise BuildError(f"{sentence}: try another version of Peano, or -O1 with --level")
    return ()


def check_xclbin(path: Path, kernel_name: str) -> None:
    """Raise `BuildError` unless the file is a whole xclbin with that kernel."""
    content = path.read_bytes() if path.is_file() else b""
    if not content:
        raise BuildError(
            "aiecc ended well but wrote no xclbin: run it by hand on `python -m torch_xdna.lowering.overlay --mlir`"
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
