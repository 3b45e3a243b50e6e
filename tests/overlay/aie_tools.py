"""mlir-aie's own tools, where a machine has them: found, run with the passes of its driver `aiecc`, and given
our commands as a runtime sequence.

Looked for on the PATH and in `$MLIR_AIE_INSTALL_DIR/bin`. Tests that need them are marked `needs_tools` and skip with
a reason where they are missing. Which passes: aiecc_passes.py.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from aiecc_passes import Driver, driver_of, names_in_help, pipeline

from torch_xdna.lowering.commands.commands import Command, Dma, MaskWrite, Wait
from torch_xdna.lowering.commands.registers import MM2S, S2MM
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.overlay.mlir import DEVICES, print_mlir
from torch_xdna.lowering.program import Program


def find(tool: str) -> str | None:
    install = os.environ.get("MLIR_AIE_INSTALL_DIR")
    places = [os.environ.get("PATH", "")] + ([str(Path(install) / "bin")] if install else [])
    return shutil.which(tool, path=os.pathsep.join(places))


needs_tools = pytest.mark.skipif(
    not (find("aie-opt") and find("aie-translate")),
    reason="aie-opt and aie-translate (mlir-aie) are neither on the PATH nor in $MLIR_AIE_INSTALL_DIR/bin",
)

FIND_FLOWS = "builtin.module(aie.device(aie-find-flows))"
SHIM_NAMES = {(MM2S, 0): "A_in", (MM2S, 1): "B_in", (S2MM, 0): "C_out"}


@functools.cache
def driver() -> tuple[Driver, frozenset[str]]:
    """The driver whose passes the found aie-opt has, and all passes that it has."""
    path = find("aie-opt")
    assert path is not None
    ended = subprocess.run([path, "--help"], capture_output=True, text=True, check=True)
    known = frozenset(names_in_help(ended.stdout + ended.stderr))
    return driver_of(known), known


def to_resources(text: str) -> str:
    """A module as the driver has it before it compiles cores: locks, buffers, addresses, routes. Raises `Refused`."""
    chosen, known = driver()
    return opt(text, pipeline(chosen.resources, known))


def to_commands(text: str) -> str:
    """The runtime sequence of `to_resources`' result as NPU commands. Raises `Refused`."""
    chosen, known = driver()
    return opt(text, pipeline(chosen.sequence, known))


def to_llvm(text: str, column: int, row: int) -> str:
    """One core of `to_resources`' result in the LLVM dialect. Raises `Refused`."""
    chosen, known = driver()
    passes = pipeline(chosen.core, known)
    return opt(text, passes.replace("=COLUMN", f"={column}").replace("=ROW", f"={row}"))


class Refused(Exception):
    """A tool ended with an error; the text is its error messages."""


def opt(text: str, *pipelines: str) -> str:
    """MLIR through pipelines of `aie-opt`, one after another. Raises `Refused`."""
    for passes in pipelines:
        text = run("aie-opt", text, f"--pass-pipeline={passes}").decode()
    return text


def run(tool: str, text: str, *options: str) -> bytes:
    """What a tool writes for MLIR text. Raises `Refused`."""
    path = find(tool)
    assert path is not None
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "in.mlir", Path(folder) / "out"
        source.write_text(text)
        ended = subprocess.run(
            [path, *options, str(source), "-o", str(result)], capture_output=True, text=True, cwd=folder
        )
        if ended.returncode:
            raise Refused("\n".join(line for line in ended.stderr.splitlines() if "error: " in line))
        return result.read_bytes()


def words_of(program: Program, *, whole: bool = False) -> np.ndarray:
    """The instruction words (uint32) that mlir-aie's tools make of a program's commands.

    `whole`: on our overlay, where mlir-aie chooses the shims' channels; else on shims with the channels given.
    """
    text = with_sequence(program, whole)
    # Shims without an overlay have no FIFOs and no routes, but their tokens still need an id.
    prepared = (
        to_resources(text)
        if whole
        else opt(text, "builtin.module(aie.device(aie-assign-tile-controller-ids))")
    )
    lowered = to_commands(prepared)
    return np.frombuffer(
        run("aie-translate", lowered, "--aie-npu-to-binary", "--aie-output-binary=true"), np.uint32
    )


def with_sequence(program: Program, whole: bool = True) -> str:
    """A device whose runtime sequence is the program's commands."""
    if whole:
        text = print_mlir(overlay(program.columns))
        lines = text[: text.index("    aie.runtime_sequence(")].splitlines()
    else:
        lines = ["module {", f"  aie.device({DEVICES[program.columns]}) {{"]
        for c in range(program.columns):
            lines.append(f"    %t{c} = aie.tile({c}, 0)")
            for (direction, channel), name in SHIM_NAMES.items():
                lines.append(f"    aie.shim_dma_allocation @{name}{c}(%t{c}, {direction}, {channel})")
    types = [f"memref<{size // 4}xi32>" for size in (program.weights_bytes, program.activations_bytes)]
    lines.append(f"    aie.runtime_sequence(%arg0: {types[0]}, %arg1: {types[1]}) {{")
    lines += [f"      {line}" for line in sequence(program.commands, types)]
    return "\n".join([*lines, "    }", "  }", "}", ""])


def sequence(commands: Sequence[Command], types: Sequence[str]) -> list[str]:
    """Commands in the syntax of `aiex`; `types` are those of the kernel arguments."""
    lines = []
    for c in commands:
        if isinstance(c, MaskWrite):
            continue  # mlir-aie's lowering of the pushes writes its own
        assert isinstance(c, Dma | Wait)
        fifo = f"@{SHIM_NAMES[c.direction, c.channel]}{c.column}"
        if isinstance(c, Wait):
            lines.append(f"aiex.npu.dma_wait {{symbol = {fifo}}}")
            continue
        assert c.element_bytes == 4
        offsets, sizes, strides = ([0, 0, 0, c.offset], list(c.sizes), list(c.strides))
        token = str(c.issue_token).lower()
        lines.append(
            f"aiex.npu.dma_memcpy_nd(%arg{c.arg}{offsets}{sizes}{strides}) "
            f"{{id = {c.bd} : i64, issue_token = {token}, metadata = {fifo}}} : {types[c.arg]}"
        )
    return lines
