"""The kernels' one object has only sections that mlir-aie's linker script places.

`aiecc` links with --orphan-handling=error, so any other section ends the build; and nothing on a core calls
constructors of statics before the program. Compiled for the CPU, so only kinds of sections are seen, not sizes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from torch_xdna.kernels_xdna1.description import KERNELS
from torch_xdna.kernels_xdna1.host import FLAGS, HERE
from torch_xdna.kernels_xdna1.host_compiler import compiler

# What mlir-aie's AIETargetLdScript.cpp names (March and August 2026).
PLACED = (".text", ".data", ".rodata", ".bss", ".comment", ".symtab", ".shstrtab", ".strtab", ".stack_sizes")
# What only this host's compiler adds: unwinding, inline functions' groups, the stack's protection.
HOST = (".eh_frame", ".group", ".note", ".llvm_addrsig")

needs_objdump = pytest.mark.skipif(not shutil.which("objdump"), reason="objdump (binutils) is not installed")


def sections(source: str, folder: Path) -> dict[str, str]:
    """Sections of a C++ source's object that the linker script has no place for, each with a symbol in it."""
    unit, target = folder / "unit.cc", folder / "unit.o"
    unit.write_text(source)
    flags = [flag for flag in FLAGS if flag not in ("-fPIC", "-shared")]
    includes = [f"-I{HERE / 'host_api'}", f"-I{HERE / 'kernels'}"]
    command = [compiler()[0], "-O2", *flags, "-fno-exceptions", *includes, "-c", str(unit), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    table = subprocess.run(["objdump", "-h", str(target)], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^\s*\d+ (\S+)", table, re.MULTILINE)
    symbols = subprocess.run(
        ["objdump", "-tC", str(target)], capture_output=True, text=True, check=True
    ).stdout
    left = [name for name in names if not name.startswith(PLACED + HOST)]
    return {name: " ".join(line for line in symbols.splitlines() if f" {name}\t" in line) for name in left}


@needs_objdump
def test_every_section_of_the_kernels_has_a_place(tmp_path: Path) -> None:
    found = sections("".join(f'#include "{kernel.name}.cc"\n' for kernel in KERNELS), tmp_path)
    # The host's AIE API keeps the core's state per thread; the core itself has it in registers.
    assert {name: symbol for name, symbol in found.items() if "aie::host::core" not in symbol} == {}


@needs_objdump
@pytest.mark.parametrize(
    "line",
    [
        "int seed(); int started = seed();",
        "int next(); int f() { thread_local int kept = next(); return kept; }",
        '__attribute__((section("kernel_tables"))) int table[] = {1, 2};',
    ],
)
def test_a_section_without_a_place_is_seen(line: str, tmp_path: Path) -> None:
    assert sections(line + "\n", tmp_path)
