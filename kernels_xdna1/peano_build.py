"""Compiles the kernels for the AIE2 core with Peano (llvm-aie), into the one object that the overlay links.

Needs `PEANO_INSTALL_DIR` (a Peano installation) and the AIE API's headers, which mlir-aie brings: found through
`MLIR_AIE_INSTALL_DIR`, the installed package `mlir_aie`, or `aie-opt` on the PATH. Nothing here ran a compiled
kernel: this machine has no Peano and no NPU.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch_xdna.kernels_xdna1.contract import CONSTANT_BYTES
from torch_xdna.kernels_xdna1.description import BY_NAME

HERE = Path(__file__).parent
OBJECT = "overlay_kernels.o"
PROGRAM_BYTES = 16 * 1024
# Kept for the core's own control code, which links with the kernels: 2.5 KB where it was compiled for RV32, whose
# instructions are shorter than AIE2's bundles.
CONTROL_BYTES = 4 * 1024
OPTIMISE = ("-O2",)
NO_FOLDING = ("-mllvm", "-aie-disable-fold-imm")
"""Keeps Peano from folding immediates, which since June 2026 may let a core read a bf16 broadcast two cycles early:
silent wrong numbers (Xilinx/mlir-air PR 1684). Older versions reject it, so it is asked for first (`accepts`)."""
STACK_USAGE = "-fstack-usage"  # writes each function's frame beside the object, as text
FLAGS = (
    "-std=c++20",
    "--target=aie2-none-unknown-elf",
    "-DNDEBUG",
    "-DKERNELS_FOR_CORE",
    "-Wno-parentheses",
    "-Wno-attributes",
    "-Wno-macro-redefined",
    "-Wno-empty-body",
)


class MissingTools(RuntimeError):
    """The kernels can't be compiled for the core here; the message says what is missing and how to get it."""


class TooLarge(RuntimeError):
    """The kernels do not fit into the core's program memory, or their constants into the data memory."""


def build(
    folder: Path,
    *,
    optimise: Sequence[str] | None = None,
    kernels: Sequence[str] = tuple(BY_NAME),
    defines: Sequence[str] = (),
    small: Sequence[str] = (),
    control_bytes: int = CONTROL_BYTES,
) -> Path:
    """Compile kernels into `folder`/overlay_kernels.o. Raises MissingTools, TooLarge or CalledProcessError.

    `optimise`: flags, by default -O2 and `NO_FOLDING` where this Peano takes it. `defines`: macros. `small`: kernels to
    compile for size, whatever `optimise` says. `control_bytes`: program memory to keep for the core's own code.
    """
    compiler, include = find_compiler(), find_headers()
    if optimise is None:
        optimise = (*OPTIMISE, *(NO_FOLDING if accepts(compiler, NO_FOLDING) else ()))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / OBJECT
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "overlay_kernels.cc"
        source.write_text(unit(kernels, small))
        flags = [*optimise, *FLAGS, *(f"-D{name}" for name in defines)]
        flags += [STACK_USAGE] * accepts(compiler, (STACK_USAGE,))
        flags += [f"-I{include}", f"-I{HERE / 'kernels'}"]
        subprocess.run([str(compiler), *flags, "-c", str(source), "-o", str(target)], check=True)
    code, constants = section_bytes(compiler, target)
    if code > PROGRAM_BYTES - control_bytes:
        target.unlink()
        raise TooLarge(
            f"the kernels take {code} bytes of program memory and a core has {PROGRAM_BYTES - control_bytes} for "
            f"them ({control_bytes} are kept for its control code): share more code between them or leave one out"
        )
    if constants > CONSTANT_BYTES:
        target.unlink()
        raise TooLarge(
            f"the kernels' constants take {constants} bytes of data memory and {CONSTANT_BYTES} are kept for them: "
            "raise contract.CONSTANT_BYTES if the core's memory has the room"
        )
    return target


def unit(kernels: Sequence[str], small: Sequence[str] = ()) -> str:
    """The one translation unit. Clang has no attribute for -Os on a single function; `minsize` is that of -Oz."""
    lines = []
    for name in sorted(
        kernels, key=lambda name: name in small
    ):  # for size: last, so that shared headers are not
        include = f'#include "{name}.cc"\n'
        if name in small:
            push = "#pragma clang attribute push(__attribute__((minsize)), apply_to = function)\n"
            include = f"{push}{include}#pragma clang attribute pop\n"
        lines.append(include)
    return "".join(lines)


def accepts(compiler: Path, flags: Sequence[str]) -> bool:
    """Whether the compiler takes these flags, asked with an empty file."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "empty.cc"
        source.touch()
        command = [str(compiler), *FLAGS, *flags, "-c", str(source), "-o", str(source.with_suffix(".o"))]
        return subprocess.run(command, capture_output=True).returncode == 0


def find_compiler() -> Path:
    """Peano's clang++."""
    root = os.environ.get("PEANO_INSTALL_DIR")
    if not root:
        raise MissingTools(
            "PEANO_INSTALL_DIR is not set: install Peano (the llvm-aie wheel, see "
            "https://github.com/Xilinx/llvm-aie) and point PEANO_INSTALL_DIR at its folder"
        )
    compiler = Path(root) / "bin" / "clang++"
    if not compiler.is_file():
        raise MissingTools(
            f"PEANO_INSTALL_DIR is {root}, but {compiler} does not exist: point it at the folder that holds "
            "Peano's bin/clang++"
        )
    return compiler


def find_headers() -> Path:
    """The include folder that holds aie_api/aie.hpp."""
    roots = [Path(root) for root in [os.environ.get("MLIR_AIE_INSTALL_DIR")] if root]
    spec = importlib.util.find_spec("mlir_aie")
    roots += [Path(place) for place in (spec.submodule_search_locations or [] if spec else [])]
    if tool := shutil.which("aie-opt"):
        roots.append(Path(tool).resolve().parent.parent)
    for root in roots:
        if (root / "include" / "aie_api" / "aie.hpp").is_file():
            return root / "include"
    looked = ", ".join(str(root / "include") for root in roots) or "no place to look in"
    raise MissingTools(
        f"the AIE API's header aie_api/aie.hpp was not found ({looked}): install the mlir_aie wheel or set "
        "MLIR_AIE_INSTALL_DIR to an mlir-aie installation"
    )


def section_bytes(compiler: Path, target: Path) -> tuple[int, int]:
    """Bytes of the object's code and of its data; zeros where Peano's llvm-size is not beside the compiler."""
    tool = compiler.with_name("llvm-size")
    if not tool.is_file():
        return 0, 0
    table = subprocess.run([str(tool), "-A", str(target)], capture_output=True, text=True, check=True).stdout
    code, data = (
        sum(int(size) for size in re.findall(rf"^\.(?:{names})\S*\s+(\d+)", table, re.MULTILINE))
        for names in ("text", "data|rodata|bss")
    )
    return code, data
