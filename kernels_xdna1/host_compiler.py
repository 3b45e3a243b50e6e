"""Compiles C++ for this process: one translation unit to one shared object, kept in the user's cache.

The cache's key is a hash of the source, the files that it includes, flags, compiler and CPU; a damaged entry is
compiled again, and other processes see all of an entry or nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

SOURCES = (".cc", ".cpp", ".h", ".hpp")

# Each build uses its own code and data, whatever else is loaded. GNU unique symbols (tables and static variables of
# inline functions) would be the first loaded build's for all builds of a process, even across dlopen's local scopes:
# a debug build would see its kernels read another build's memory. clang never makes such symbols and takes the flag.
OWN_SYMBOLS = ("-fno-gnu-unique", "-Wl,-Bsymbolic")


class CompilerError(RuntimeError):
    """C++ can't be compiled here; the message says why and what to install."""


def shared_object(name: str, source: str, flags: Sequence[str], includes: Sequence[Path] = ()) -> Path:
    """The path of `source` compiled with `flags`; compiled unless the cache has it whole.

    `name` begins the file's name. `includes`: folders of headers; all of their files count for the key. Raises
    CompilerError, and OSError if the cache can't be written.
    """
    files = sorted(f for folder in includes for f in folder.rglob("*") if f.suffix in SOURCES)
    flags = [*OWN_SYMBOLS, *flags]
    key = hashlib.sha256()
    texts = (f"{f.name}\n{f.read_text()}" for f in files)
    for part in (source, " ".join(flags), compiler()[1], cpu(), *texts):
        key.update(part.encode() + b"\0")
    target = cache_directory() / f"{name}-{key.hexdigest()[:32]}.so"
    digest = target.with_suffix(".sha256")
    if not is_whole(target, digest):
        _compile_to(target, digest, source, [*flags, *(f"-I{folder}" for folder in includes)])
    return target


def is_whole(target: Path, digest: Path) -> bool:
    """Whether the cached file is what was written: loading half a shared object could end the process."""
    try:
        return digest.read_text() == hashlib.sha256(target.read_bytes()).hexdigest()
    except OSError:
        return False


def _compile_to(target: Path, digest: Path, source: str, flags: Sequence[str]) -> None:
    """Compile beside the target and rename, so that other processes see all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unit_file, result, sum_file = (Path(scratch) / n for n in ("unit.cc", "unit.so", "sum"))
        unit_file.write_text(source)
        command = [compiler()[0], *flags, str(unit_file), "-o", str(result)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            first = next((line for line in run.stderr.splitlines() if "error" in line), run.stderr[:300])
            what = target.name.partition("-")[0]
            raise CompilerError(f"{compiler()[0]} could not compile the {what} for the CPU: {first}")
        sum_file.write_text(hashlib.sha256(result.read_bytes()).hexdigest())
        digest.unlink(missing_ok=True)
        result.replace(target)
        sum_file.replace(digest)


@cache
def compiler() -> tuple[str, str]:
    """(path, version) of the C++ compiler: $CXX, g++ or clang++."""
    for name in filter(None, (os.environ.get("CXX"), "g++", "clang++")):
        if path := shutil.which(name):
            version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            return path, version
    raise CompilerError(
        "no C++20 compiler is here, neither $CXX nor g++ nor clang++: install g++ (Debian, Ubuntu: apt install g++)"
    )


@cache
def cpu() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "unknown")


def cache_directory() -> Path:
    """$TORCH_XDNA_CACHE, or torch-xdna in the XDG cache directory."""
    if chosen := os.environ.get("TORCH_XDNA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch-xdna"
