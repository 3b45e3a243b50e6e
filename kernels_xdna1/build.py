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
from pathlib import Path

from kernels_xdna1.description import CONSTANT_BYTES, KERNELS

HERE = Path(__file__).parent
OBJECT = "overlay_kernels.o"
PROGRAM_BYTES = 16 * 1024
# Kept for the core's own control code, which links with the kernels: 2.5 KB where it was compiled for RV32, whose
# instructions are shorter than AIE2's bundles.
CONTROL_BYTES = 4 * 1024
FLAGS = (
    "-O2",
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


def build(folder: Path) -> Path:
    """Compile all kernels into `folder`/overlay_kernels.o. Raises MissingTools, TooLarge or CalledProcessError."""
    compiler, include = find_compiler(), find_headers()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / OBJECT
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "overlay_kernels.cc"
        source.write_text("".join(f'#include "{kernel.name}.cc"\n' for kernel in KERNELS))
        includes = [f"-I{include}", f"-I{HERE / 'kernels'}"]
        subprocess.run([str(compiler), *FLAGS, *includes, "-c", str(source), "-o", str(target)], check=True)
    code, constants = section_bytes(compiler, target)
    if code > PROGRAM_BYTES - CONTROL_BYTES:
        target.unlink()
        raise TooLarge(
            f"the kernels take {code} bytes of program memory and a core has {PROGRAM_BYTES - CONTROL_BYTES} for "
            f"them ({CONTROL_BYTES} are kept for its control code): share more code between them or leave one out"
        )
    if constants > CONSTANT_BYTES:
        target.unlink()
        raise TooLarge(
            f"the kernels' constants take {constants} bytes of data memory and {CONSTANT_BYTES} are kept for them: "
            "raise description.CONSTANT_BYTES if the core's memory has the room"
        )
    return target


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
