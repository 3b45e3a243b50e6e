"""The overlay's description: sizes that fit, the same facts for every reader, pictures and listings that are fresh."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pytest

from torch_xdna import lowering
from torch_xdna.kernels_xdna1 import sizes
from torch_xdna.kernels_xdna1.description import BY_NAME
from torch_xdna.lowering.errors import LimitError
from torch_xdna.lowering.overlay import listing, memory_use, overlay
from torch_xdna.lowering.overlay.core_program import (
    ACCUMULATOR,
    COLUMN,
    HEADER,
    ROW,
    Acquire,
    Call,
    Loop,
    Word,
    walk,
)
from torch_xdna.lowering.overlay.description import KERNELS, Tile, check, descriptors
from torch_xdna.lowering.overlay.picture import draw
from torch_xdna.lowering.overlay.variants import FULL

SVG = Path(lowering.__file__).with_name("overlay.svg")


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_every_core_is_fed_by_its_row_and_its_column(columns: int) -> None:
    array = overlay(columns)
    assert len(array.cores) == 4 * columns
    for core in array.cores:
        a, b, c = (array.port(core, path) for path in "ABC")
        assert {t.row for t in a.targets} == {core.row} and len(a.targets) == columns
        assert {t.column for t in b.targets} == {core.column} and len(b.targets) == 4
        assert c.source == core
        assert (a.depth, b.depth, c.depth) == (2, 2, 1)
        assert a.object_bytes == b.object_bytes == c.object_bytes == 8192


def test_a_objects_carry_one_block_per_row_that_they_serve() -> None:
    assert [overlay(columns).fifo("A_in0").object_bytes for columns in (1, 2, 4)] == [32768, 16384, 8192]


@pytest.mark.parametrize("columns", [0, 3, 5])
def test_other_numbers_of_columns_are_refused(columns: int) -> None:
    with pytest.raises(LimitError, match=f"columns: .* {columns} were asked for"):
        overlay(columns)


def test_memory_of_core_and_memtile_by_hand() -> None:
    array = overlay(4)
    assert sum(memory_use(array, Tile(2, 3)).values()) == 3328 + 2048 + 256 + 16384 + 5 * 8192 + 12
    assert sum(memory_use(array, Tile(2, 1)).values()) == 4 * 8192 + 4 * 8192 + 2 * 32768
    assert sum(memory_use(overlay(1), Tile(0, 1)).values()) == 2 * 32768 + 4 * 8192 + 2 * 32768


def test_descriptors_of_memtiles_by_hand() -> None:
    # channels in: A, B, the four C; out: A per row, B, the joined C
    assert descriptors(overlay(4), Tile(1, 1)) == (4 + 2 + 2 + 4 + 8, 4 + 2 + 2 + 4)
    assert descriptors(overlay(1), Tile(0, 1)) == (8 + 2 + 2 + 2 + 2 + 4, 4 + 2 + 2 + 2 + 2 + 8)


def _with_fifo(name: str, columns: int = 4, **changes: object):
    array = overlay(columns)
    fifos = tuple(dataclasses.replace(f, **changes) if f.name == name else f for f in array.fifos)
    return dataclasses.replace(array, fifos=fifos)


@pytest.mark.parametrize(
    ("name", "depth", "limit"),
    [
        ("C_core1_2", 2, r"core memory: the memory of core \(row 2, column 1\) .* is 71180"),
        ("A_row3", 3, "core memory"),
        ("B_in2", 60, "memtile memory: the memory of memtile 2"),
        (
            "A_in0",
            24,
            "memtile descriptors: the number of descriptors of the even channels of memtile 0 is 60",
        ),
        ("A_row0", 1, "FIFO depth: the core program holds 2 objects of A_row0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name: str, depth: int, limit: str) -> None:
    with pytest.raises(LimitError, match=limit):
        check(_with_fifo(name, depth=depth))


def test_four_buffers_of_a_divided_object_are_too_many() -> None:
    with pytest.raises(LimitError, match="even channels of memtile 0 is 32, the limit is 24 descriptors"):
        check(_with_fifo("A_in0", columns=1, depth=4))


def test_a_second_result_channel_is_refused() -> None:
    array = overlay(4)
    neighbour = (Tile(1, 2),)
    extra = [
        dataclasses.replace(array.fifo("C_core0_0"), name=f"D{i}", depth=0, targets=neighbour)
        for i in range(2)
    ]
    with pytest.raises(LimitError, match="core DMA channels: outgoing FIFOs of core"):
        check(dataclasses.replace(array, fifos=(*array.fifos, *extra)))


def test_the_program_calls_every_kernel_with_its_operands() -> None:
    calls = [s for s in walk(overlay(4).program) if isinstance(s, Call)]
    assert {c.kernel for c in calls} == set(BY_NAME) == set(KERNELS)
    loops = {s.variable for s in walk(overlay(4).program) if isinstance(s, Loop)}
    objects = {n for s in walk(overlay(4).program) if isinstance(s, Acquire) for n in s.names}
    for call in calls:
        for operand, kind in zip(call.operands, KERNELS[call.kernel], strict=True):
            fits = {
                "int": isinstance(operand, Word) or operand in {ROW, COLUMN, *loops},
                "object": operand in objects,
                ACCUMULATOR: operand == ACCUMULATOR,
                HEADER: operand == HEADER,
            }
            assert fits[kind], (call, operand, kind)


def test_listing_reads_like_the_loops() -> None:
    text = "\n".join(listing())
    assert text.startswith(
        "for ever:\n    a = acquire A\n    read_header(a, hdr)\n    release 1 A\n    switch h[0]:"
    )
    assert "        for o in h[1]:\n            gemm_init(acc)\n            for k in h[2]:\n" in text
    assert "attn_q(a1, c, h[3] + 1, column)" in text


def test_the_committed_picture_is_fresh() -> None:
    assert SVG.read_text() == draw(overlay(4)), (
        "run `python -m torch_xdna.lowering.overlay --svg > lowering/overlay.svg`"
    )


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_the_picture_shows_every_tile(columns: int) -> None:
    text = draw(overlay(columns))
    titles = [t.firstChild.data for t in xml.dom.minidom.parseString(text).getElementsByTagName("text")]
    assert sum(t.startswith("core ") for t in titles) == 4 * columns
    assert (
        sum(t.startswith("memtile ") for t in titles) == columns == sum(t.startswith("shim ") for t in titles)
    )


@pytest.mark.parametrize("option", ["--mlir", "--svg", "--program", "--memory"])
def test_command(option: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "torch_xdna.lowering.overlay", option, "--columns", "2"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert len(run.stdout) > 100
    if option == "--memory":
        assert f"{sizes.core_bytes(FULL.kernels):,} (" in run.stdout


def test_the_description_needs_neither_torch_nor_ml_dtypes() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['ml_dtypes'] = None;"
        "from lowering.overlay import overlay; from lowering.overlay.mlir import print_mlir;"
        "print(len(print_mlir(overlay(4))))"
    )
    assert int(subprocess.check_output([sys.executable, "-c", code])) > 100_000
