"""The printed MLIR: structure, and constructs that real mlir-aie accepted."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.overlay.description import KERNELS
from torch_xdna.lowering.overlay.mlir import print_mlir

# One line per kind of line that mlir-aie (main of April 2026) took through all passes before the core compiler, with
# names, numbers and operand lists replaced (see `shape`). A new kind belongs here once test_mlir_aie.py passes.
ACCEPTED = Path(__file__).with_name("data") / "accepted_lines.txt"


def shape(line: str) -> str:
    """A line with names, numbers, comma-separated repetitions and memref shapes replaced."""
    line = re.sub(r"memref<[^>]*>", "MEMREF", line.strip())
    line = re.sub(r"%[\w]+", "%", line)
    line = re.sub(r"@[\w]+", "@", line)
    line = re.sub(r'"[^"]*"', '""', line)
    line = re.sub(r"\b\d+\b", "N", line)
    for item in ("%", "@", "MEMREF", "N"):
        line = re.sub(rf"{item}(, {item})+", item, line)
    line = re.sub(r"(MEMREF|iN|i32)(, (MEMREF|iN|i32))+", "TYPES", line)
    line = re.sub(r"\(MEMREF\)", "(TYPES)", line)
    return re.sub(r"%\[%\]", "%[%]", line)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_every_kind_of_line_is_one_that_mlir_aie_accepted(columns: int) -> None:
    accepted = set(ACCEPTED.read_text().splitlines())
    new = {shape(line) for line in print_mlir(overlay(columns)).splitlines()} - accepted
    assert not new, "run tests/overlay/test_mlir_aie.py with mlir-aie's aie-opt, then add them"


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_counts(columns: int) -> None:
    text = print_mlir(overlay(columns))
    kinds = Counter(re.findall(r"aie\.(tile|core|buffer|objectfifo|objectfifo\.link)[ (@]", text))
    assert kinds["tile"] == 6 * columns and kinds["core"] == 4 * columns and kinds["buffer"] == 8 * columns
    assert kinds["objectfifo"] == columns * (1 + 1 + 1 + 4 + 1) + 4
    assert kinds["objectfifo.link"] == 3 * columns
    assert text.count("func.func private") == len(KERNELS)
    assert text.count("dynamic_objfifo_lowering = true") == 4 * columns


def test_values_are_defined_before_use_and_once() -> None:
    """SSA by hand: within a core every name has one definition, and it is above and not deeper than its uses."""
    core = print_mlir(overlay(1)).split("%core0_0 = ")[1].split("aie.end")[0]
    visible: list[set[str]] = [{"%t0_2", "%hdr0_0", "%acc0_0"}]
    for line in core.splitlines():
        if line.strip().startswith("}"):
            visible.pop()
        defined = re.findall(r"^\s*(%\w+) = ", line) + re.findall(r"scf\.for (%\w+)", line)
        for used in set(re.findall(r"%\w+", line)) - set(defined):
            assert any(used in names for names in visible), line
        assert not any(name in names for name in defined for names in visible), line
        if line.rstrip().endswith("{"):
            visible.append(set(defined))
        else:
            visible[-1].update(defined)


def test_braces_balance() -> None:
    for columns in (1, 2, 4):
        text = print_mlir(overlay(columns))
        assert text.count("{") == text.count("}")
