"""The kernels as functions of this process: the C++ sources, compiled for the CPU against the host's AIE API.

`load()` compiles once (about ten seconds) and keeps the shared object in the user's cache (see `host_compiler`). Numpy
and the standard library are all that is needed, and a C++20 compiler on first use.

The core's fp32 sums are not IEEE's (`host_api/aie_api/adder.hpp`). Debug builds can follow them (`Kernels.exact`); the
others add as the CPU does. What that changes, every kernel run both ways on bf16 inputs of Whisper's sizes (256 rows,
products over 512 columns, attention over 300 keys; tests/kernels/test_core_adder.py repeats it):

| op | bf16 results with the same bits | relative L2 of the difference |
| --- | --- | --- |
| product and bias | 99.99 % | 2.8e-6 |
| product, bias, GELU | 99.93 % | 1.1e-6 |
| product, bias, residual | 99.99 % | 9.8e-7 |
| attention | 99.98 % | 8.3e-5 |
| layer_norm | 100.00 % (not all) | 1.6e-7 |
| softmax | 99.99 % | 1.5e-6 |
| gelu | all | 0 |
| add | all | 0 |

One rounding to bf16 is 1.1e-3: the adder shows in a few last bits only. Of the
fp32 sums of a product over 512 columns themselves, before that rounding, 28 % have the same bits.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from torch_xdna.kernels_xdna1.description import KERNELS, Kernel
from torch_xdna.kernels_xdna1.host_compiler import CompilerError, compiler, shared_object

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
        library.host_exact_add.argtypes = (ctypes.c_void_p,) * 3 + (ctypes.c_int32,)
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
        """Debug builds: let this thread's sums (products, additions, subtractions in accumulators) follow the core's
        adder bit by bit (slow)."""
        if not self.debug:
            raise ValueError("only a debug build (load(debug=True)) follows the core's adder bit by bit")
        self.library.host_exact(int(on))


@cache
def load(
    *, debug: bool = False, counting: bool = False, sanitize: bool = False, defines: tuple[str, ...] = ()
) -> Kernels:
    """Compile the kernels, or take them from the cache.

    `debug` checks alignment and bounds of every access; `counting` counts operations per issue slot; `sanitize`
    adds the address and undefined-behaviour sanitizers (the process must have been started with their runtime
    preloaded, see `sanitizer_runtime`); `defines` are an overlay's macros that leave code out. Raises CompilerError.
    """
    if sanitize and "libasan" not in _mapped():
        raise CompilerError(
            "a process runs sanitized kernels only if it was started with the sanitizer's runtime: set "
            f"LD_PRELOAD={sanitizer_runtime()} for it"
        )
    flags = ["-O0" if sanitize else "-O1" if debug else "-O3", *FLAGS]
    flags += [f"-D{name}" for name in (*defines, "AIE_HOST_DYNAMIC_TLS")] if defines else []
    flags += ["-DAIE_HOST_DEBUG"] * debug + ["-DAIE_HOST_COUNT"] * counting
    flags += ["-DAIE_INLINE=inline", "-fsanitize=address,undefined", "-fno-sanitize-recover"] * sanitize
    return Kernels(ctypes.CDLL(str(build(flags))), debug=debug, counting=counting)


def build(flags: list[str]) -> Path:
    """The shared object for these flags; compiled unless the cache has it whole."""
    return shared_object("kernels", unit(), flags, [HERE / "host_api", HERE / "kernels"])


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


def _mapped() -> str:
    """The libraries of this process."""
    try:
        return Path("/proc/self/maps").read_text()
    except OSError:
        return ""


def sanitizer_runtime() -> str:
    """What LD_PRELOAD must name for `load(sanitize=True)`."""
    run = subprocess.run([compiler()[0], "-print-file-name=libasan.so"], capture_output=True, text=True)
    return run.stdout.strip()
