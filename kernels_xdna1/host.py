"""The kernels as functions of this process: the C++ sources, compiled for the CPU against the host's AIE API.

`load()` compiles once (about ten seconds) and keeps the shared object in the user's cache, under the hash of sources,
flags, compiler and CPU. Numpy and the standard library are all that is needed, and a C++20 compiler on first use.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from kernels_xdna1.description import KERNELS, Kernel

HERE = Path(__file__).parent
SLOTS = ("multiply", "load_a", "load_b", "store", "move", "scalar")

FLAGS = (
    "-std=c++20",
    "-fPIC",
    "-shared",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wno-psabi",
)


class CompilerError(RuntimeError):
    """The kernels can't be compiled here; the message says why and what to install."""


class KernelError(RuntimeError):
    """A debug build saw a kernel reach for memory that the core would not let it have."""


class Kernels:
    """The kernels by name, each taking addresses (int) for buffers and ints: `kernels.gemm_step(a, b, acc)`.

    Calls release the GIL. Each starts in the core's power-up state (rounding mode floor) with denormals flushed.
    """

    read_header: Callable[..., None]
    gemm_init: Callable[..., None]
    gemm_step: Callable[..., None]
    gemm_params: Callable[..., None]
    gemm_residual: Callable[..., None]
    gemm_finish: Callable[..., None]
    attn_q: Callable[..., None]
    attn_init: Callable[..., None]
    attn_k: Callable[..., None]
    attn_finish: Callable[..., None]
    row_stats: Callable[..., None]
    row_apply: Callable[..., None]

    def __init__(self, library: ctypes.CDLL, *, debug: bool, counting: bool):
        self.library, self.debug, self.counting = library, debug, counting
        library.host_error.restype = ctypes.c_char_p
        library.host_matrix_unit.argtypes = (ctypes.c_void_p,) * 3 + (ctypes.c_int32,)
        library.host_round.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)
        for kernel in KERNELS:
            function = getattr(library, f"host_{kernel.name}")
            function.restype = None
            function.argtypes = [ctypes.c_void_p if o.is_buffer else ctypes.c_int32 for o in kernel.operands]
            setattr(self, kernel.name, self._checked(function, kernel) if debug else function)

    def _checked(self, function: Callable[..., None], kernel: Kernel) -> Callable[..., None]:
        def call(*arguments: int) -> None:
            function(*arguments)
            if message := self.library.host_error():
                raise KernelError(f"{kernel.name}: {message.decode()}")

        return call

    def counts(self) -> dict[str, int]:
        """Operations per issue slot since the last call, of this thread; all zero unless built with counting."""
        found = (ctypes.c_uint64 * len(SLOTS))()
        self.library.host_counts(found)
        return dict(zip(SLOTS, found))

    def exact(self, on: bool) -> None:
        """Debug builds: let this thread's matrix products follow the core's adder bit by bit (slow)."""
        if not self.debug:
            raise ValueError("only a debug build (load(debug=True)) follows the core's adder bit by bit")
        self.library.host_exact(int(on))


@cache
def load(*, debug: bool = False, counting: bool = False, sanitize: bool = False) -> Kernels:
    """Compile the kernels, or take them from the cache.

    `debug` checks alignment and bounds of every access; `counting` counts operations per issue slot; `sanitize`
    adds the address and undefined-behaviour sanitizers (the process must have been started with their runtime
    preloaded, see `sanitizer_runtime`). Raises CompilerError.
    """
    if sanitize and "libasan" not in _mapped():
        raise CompilerError(
            "a process runs sanitized kernels only if it was started with the sanitizer's runtime: set "
            f"LD_PRELOAD={sanitizer_runtime()} for it"
        )
    flags = ["-O0" if sanitize else "-O1" if debug else "-O3", *FLAGS]
    flags += ["-DAIE_HOST_DEBUG"] * debug + ["-DAIE_HOST_COUNT"] * counting
    flags += ["-DAIE_INLINE=inline", "-fsanitize=address,undefined", "-fno-sanitize-recover"] * sanitize
    return Kernels(ctypes.CDLL(str(build(flags))), debug=debug, counting=counting)


def build(flags: list[str]) -> Path:
    """The shared object for these flags; compiled unless the cache has it whole."""
    source = unit()
    files = sorted([*HERE.glob("kernels/*"), *HERE.glob("host_api/aie_api/*")])
    key = hashlib.sha256()
    for part in (
        source,
        " ".join(flags),
        compiler()[1],
        cpu(),
        *(f"{f.name}\n{f.read_text()}" for f in files),
    ):
        key.update(part.encode() + b"\0")
    target = cache_directory() / f"kernels-{key.hexdigest()[:32]}.so"
    digest = target.with_suffix(".sha256")
    if not is_whole(target, digest):
        compile_to(target, digest, source, flags)
    return target


def is_whole(target: Path, digest: Path) -> bool:
    """Whether the cached file is what was written: loading half a shared object could end the process."""
    try:
        return digest.read_text() == hashlib.sha256(target.read_bytes()).hexdigest()
    except OSError:
        return False


def compile_to(target: Path, digest: Path, source: str, flags: list[str]) -> None:
    """Compile beside the target and rename, so that other processes see all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unit_file, result, sum_file = (Path(scratch) / n for n in ("kernels.cc", "kernels.so", "sum"))
        unit_file.write_text(source)
        command = [compiler()[0], *flags, f"-I{HERE / 'host_api'}", f"-I{HERE / 'kernels'}"]
        run = subprocess.run([*command, str(unit_file), "-o", str(result)], capture_output=True, text=True)
        if run.returncode:
            first = next((line for line in run.stderr.splitlines() if "error" in line), run.stderr[:300])
            raise CompilerError(f"{compiler()[0]} could not compile the kernels for the CPU: {first}")
        sum_file.write_text(hashlib.sha256(result.read_bytes()).hexdigest())
        digest.unlink(missing_ok=True)
        result.replace(target)
        sum_file.replace(digest)


def unit() -> str:
    """The one translation unit: every kernel and, per kernel, an entry that sets up the core's state."""
    lines = [f'#include "{kernel.name}.cc"' for kernel in KERNELS]
    lines.append('#include "aie_api/entries.hpp"')
    for kernel in KERNELS:
        parameters = ", ".join(f"{o.c_type} {o.name}" for o in kernel.operands)
        operands = ", ".join(f"{{{o.name}, {o.bytes}}}" for o in kernel.buffers)
        names = ", ".join(o.name for o in kernel.operands)
        lines.append(
            f'extern "C" void host_{kernel.name}({parameters}) '
            f"{{ const aie::host::call scope{{{operands}}}; {kernel.name}({names}); }}"
        )
    return "\n".join(lines) + "\n"


@cache
def compiler() -> tuple[str, str]:
    """(path, version) of the C++ compiler: $CXX, g++ or clang++."""
    for name in filter(None, (os.environ.get("CXX"), "g++", "clang++")):
        if path := shutil.which(name):
            version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            return path, version
    raise CompilerError(
        "the kernels run on the CPU only after a C++20 compiler has compiled them, and neither $CXX nor g++ nor "
        "clang++ is here: install g++ (Debian, Ubuntu: apt install g++)"
    )


@cache
def cpu() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "unknown")


def _mapped() -> str:
    """The libraries of this process."""
    try:
        return Path("/proc/self/maps").read_text()
    except OSError:
        return ""


def cache_directory() -> Path:
    """$TORCH_XDNA_CACHE, or torch-xdna in the XDG cache directory."""
    if chosen := os.environ.get("TORCH_XDNA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch-xdna"


def sanitizer_runtime() -> str:
    """What LD_PRELOAD must name for `load(sanitize=True)`."""
    run = subprocess.run([compiler()[0], "-print-file-name=libasan.so"], capture_output=True, text=True)
    return run.stdout.strip()
