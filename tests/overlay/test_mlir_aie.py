"""The overlay through mlir-aie's own passes: resources, routes, the lowered cores, and the words of programs."""

from __future__ import annotations

import functools
import re
from collections import Counter

import pytest
from aie_tools import FIND_FLOWS, Refused, driver, needs_tools, opt, run, to_llvm, to_resources, words_of
from aiecc_passes import INTRINSICS, VECTORS, flat
from lowered_core import demanded, executed

from torch_xdna.kernels_xdna1.contract import CONSTANT_BYTES
from torch_xdna.kernels_xdna1.description import BY_NAME
from torch_xdna.lowering import limits, lower, ops
from torch_xdna.lowering.commands.check import difference_in_effect
from torch_xdna.lowering.overlay import memory_use, overlay
from torch_xdna.lowering.overlay.description import COLUMN_CHOICES, Fifo, Tile, descriptors
from torch_xdna.lowering.overlay.mlir import print_mlir
from torch_xdna.lowering.whisper import EncoderConfig, encoder_region

pytestmark = needs_tools
every_width = pytest.mark.parametrize("columns", COLUMN_CHOICES)
ELEMENT_BYTES = {"bf16": 2, "i32": 4, "f32": 4}


@functools.cache
def resources(columns: int) -> str:
    """The overlay after everything that needs no core compiler."""
    return to_resources(print_mlir(overlay(columns)))


def buffers(text: str) -> dict[tuple[int, int], dict[str, tuple[int, int]]]:
    """By tile (column, row): name -> address and bytes."""
    tiles = {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"(%\w+) = aie\.tile\((\d+), (\d+)\)", text)}
    found: dict[tuple[int, int], dict[str, tuple[int, int]]] = {tile: {} for tile in tiles.values()}
    pattern = r"aie\.buffer\((%\w+)\) \{address = (\d+) : i32.*?sym_name = \"(\w+)\"\} : memref<(\d+)x(\w+)>"
    for tile, address, name, count, kind in re.findall(pattern, text):
        found[tiles[tile]][name] = int(address), int(count) * ELEMENT_BYTES[kind]
    return found


@every_width
def test_buffers_are_those_of_the_description_and_leave_room_for_constants(columns: int) -> None:
    array = overlay(columns)
    placed = buffers(resources(columns))
    for tile in array.tiles:
        if tile.kind == "shim":
            continue
        use = memory_use(array, tile)
        behind = use.pop("constants", 0)
        here = sorted(placed[tile.column, tile.row].values())
        assert sum(size for _, size in here) == sum(use.values()) - use.get("stack", 0)
        ends = [use.get("stack", 0), *(address + size for address, size in here)]
        assert all(address >= end for (address, _), end in zip(here, ends, strict=False))
        memory = limits.CORE_MEMORY if tile.kind == "core" else limits.MEMTILE_MEMORY
        assert ends[-1] + behind <= memory.maximum
        assert all(address % 32 == 0 for address, size in here if size >= limits.BLOCK_BYTES)


@every_width
def test_descriptors_are_those_of_the_description(columns: int) -> None:
    text = resources(columns)
    array = overlay(columns)
    for tile in array.tiles:
        if tile.kind == "shim":
            continue
        name = "memtile_dma" if tile.kind == "memtile" else "mem"
        body = re.search(rf"aie\.{name}\(%\w*{tile.column}_{tile.row}\) \{{(.*?)\n    \}}", text, re.DOTALL)
        assert body is not None, tile
        ids = [int(i) for i in re.findall(r"{bd_id = (\d+)", body[1])]
        assert len(ids) == len(set(ids))
        if tile.kind == "memtile":
            half = limits.MEMTILE_DESCRIPTORS.maximum
            even = sum(i < half for i in ids)
            assert (even, len(ids) - even) == descriptors(array, tile)
        else:
            assert len(ids) == sum(array.port(tile, path).depth for path in "ABC")


@every_width
def test_locks_start_with_every_buffer_empty(columns: int) -> None:
    array, text = overlay(columns), resources(columns)
    tiles = {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"(%\w+) = aie\.tile\((\d+), (\d+)\)", text)}
    pattern = r"aie\.lock\((%\w+), (\d+)\) \{init = (\d+) : i32, sym_name = \"\w+_(prod|cons)_lock_\d\""
    locks = [(tiles[t], int(n), int(init), kind) for t, n, init, kind in re.findall(pattern, text)]
    assert len(locks) == text.count("= aie.lock(") == len({lock[:2] for lock in locks})
    for tile in array.tiles:
        here = [lock for lock in locks if lock[0] == (tile.column, tile.row)]
        if tile.kind == "core":
            depths = [array.port(tile, path).depth for path in "ABC"]
        elif tile.kind == "memtile":
            links = [link for link in array.links if array.fifo(link.targets[0]).source == tile]
            ends = [[array.fifo(name) for name in (*link.sources, *link.targets)] for link in links]
            wholes = [max(fifos, key=lambda f: f.object_bytes) for fifos in ends]
            depths = [whole.depth for whole, fifos in zip(wholes, ends, strict=True) for _ in fifos[1:]]
        else:
            depths = [0, 0, 0]  # the words synchronize the shims, not locks
        assert sorted(init for *_, init, kind in here if kind == "prod") == sorted(depths)
        assert [init for *_, init, kind in here if kind == "cons"] == [0] * len(depths)


@every_width
def test_shim_channels_are_those_that_the_words_name(columns: int) -> None:
    found = re.findall(
        r"aie\.shim_dma_allocation @(\w+?)_shim_alloc\(%\w*?(\d)_0, (\w+), (\d)\)", resources(columns)
    )
    expected = {
        (f"{path}{c}", str(c), direction, str(number))
        for c in range(columns)
        for path, direction, number in (("A_in", "MM2S", 0), ("B_in", "MM2S", 1), ("C_out", "S2MM", 0))
    }
    assert set(found) == expected and len(found) == len(expected)


@every_width
def test_routes_and_parts_are_those_of_the_fifos_and_links(columns: int) -> None:
    """Where the routed switches lead, and which part of which object each memtile channel moves."""
    array, text = overlay(columns), resources(columns)

    def number(fifo: Fifo, tile: Tile) -> int:
        """Channels count per tile and direction, in the order of the FIFOs."""
        same = [f for f in array.fifos if (tile == f.source if tile == fifo.source else tile in f.targets)]
        return same.index(fifo)

    unrouted = re.sub(r"\n *aie\.flow\(.*", "", text)  # what the router left over
    found = re.findall(r"aie\.flow\((%\w+), DMA : (\d), (%\w+), DMA : (\d)\)", opt(unrouted, FIND_FLOWS))
    places = {f"{t.column}_{t.row}": t for t in array.tiles}
    routes = [(places[s[-3:]], int(i), places[t[-3:]], int(j)) for s, i, t, j in found]
    wanted = {(f.source, number(f, f.source), t, number(f, t)) for f in array.fifos for t in f.targets}
    assert set(routes) == wanted and len(routes) == len(wanted)

    for link in array.links:
        ends = [array.fifo(name) for name in (*link.sources, *link.targets)]
        whole = max(ends, key=lambda f: f.object_bytes)
        tile = array.fifo(link.targets[0]).source
        chains = memtile_chains(text, tile)
        offsets = [o // 2 for o in link.offsets] or [0]
        for i, fifo in enumerate([f for f in ends if f is not whole]):
            expected = [(f"{whole.name}_{n}", (*offsets, 0)[i]) for n in range(whole.depth)]
            assert chains["MM2S" if fifo.source == tile else "S2MM", number(fifo, tile)] == expected
        expected = [(f"{whole.name}_{n}", offset) for n in range(whole.depth) for offset in offsets]
        assert chains["MM2S" if whole.source == tile else "S2MM", number(whole, tile)] == expected


def memtile_chains(text: str, tile: Tile) -> dict[tuple[str, int], list[tuple[str, int]]]:
    """By direction and channel: buffer ("FIFO_number") and element offset of each descriptor, 4096 elements each."""
    body = re.search(rf"aie\.memtile_dma\(%\w*{tile.column}_{tile.row}\) \{{(.*?)\n    \}}", text, re.DOTALL)
    assert body is not None
    chains: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for line in body[1].splitlines():
        if start := re.search(r"aie\.dma_start\((\w+), (\d)", line):
            chain = chains.setdefault((start[1], int(start[2])), [])
        elif part := re.search(r"aie\.dma_bd\(%(\w+?)(?:_cons)?_buff_(\d) : \S+, (\d+), 4096\)", line):
            chain.append((f"{part[1]}_{part[2]}", int(part[3])))
    return chains


def header(**words: int) -> list[int]:
    values = [0] * 64
    for name, value in words.items():
        values[int(name[1:])] = value
    return values


def headers(columns: int) -> list[list[int]]:
    """Every op after every other one, with odd trip counts, so that FIFOs stand at either buffer."""
    gemm = header(h0=1, h1=2, h2=3, h3=columns, h4=4, h8=1)
    alone = header(h0=1, h1=1, h2=5)
    attention = header(h0=2, h1=3, h2=2, h3=max(2, columns) - 2)
    rows = header(h0=3, h1=1, h2=5, h3=3, h4=3)
    unknown = header(h0=7)
    return [
        gemm,
        attention,
        rows,
        gemm,
        rows,
        attention,
        alone,
        attention,
        attention,
        unknown,
        rows,
        rows,
        gemm,
    ]


@every_width
def test_lowered_cores_execute_the_core_program(columns: int) -> None:
    """Locks, buffers and kernel calls of every core, in order, against the description's core program."""
    array, text = overlay(columns), resources(columns)
    for core in array.cores:
        wanted = demanded(array, core, headers(columns))
        assert executed(text, array, core, headers(columns)) == wanted
    calls = Counter(event[0] for event in wanted)
    assert set(BY_NAME) <= set(calls)


def test_a_lock_that_is_missing_would_be_seen() -> None:
    array, text = overlay(1), resources(1)
    core = array.cores[0]
    locks = [m for m in re.finditer(r" *aie\.use_lock\(%A_row0.*, AcquireGreaterEqual, 2\)\n", text)]
    assert len(locks) == 2  # attention and row ops
    for lock in locks:
        broken = text[: lock.start()] + text[lock.end() :]
        assert executed(broken, array, core, headers(1)) != demanded(array, core, headers(1))


@every_width
def test_cores_become_llvm_ir_and_linker_scripts(columns: int) -> None:
    array, text = overlay(columns), resources(columns)
    for core in (array.cores[0], array.cores[-1]):
        lowered = to_llvm(text, core.column, core.row)
        source = run("aie-translate", lowered, "--mlir-to-llvmir").decode()
        assert f"define void @core_{core.column}_{core.row}()" in source
        assert all(f"call void @{kernel}(" in source for kernel in BY_NAME)
        place = [f"--tilecol={core.column}", f"--tilerow={core.row}"]
        script = run("aie-translate", text, "--aie-generate-ldscript", *place).decode()
        free = re.search(r"data \(!RX\) : ORIGIN = 0x(\w+), LENGTH = 0x(\w+)", script)
        assert free is not None and int(free[2], 16) >= CONSTANT_BYTES
        assert "INPUT(overlay_kernels.o)" in script


def test_what_the_description_refuses_mlir_aie_refuses_too() -> None:
    four_deep = re.sub(r"(@A_in0\(.*?), \[2, 2\]", r"\1, [4, 4]", print_mlir(overlay(1)))
    with pytest.raises(Refused, match="more than 48 blocks"):
        to_resources(four_deep)
    third_a = re.sub(r"(@A_row\d\(.*?), \[2, 2\]", r"\1, [2, 3]", print_mlir(overlay(1)))
    with pytest.raises(Refused, match="allocation failed"):
        to_resources(third_a)


def region(op: ops.Op, shapes: list[tuple[int, int]], **params: tuple[int, ...]) -> ops.Region:
    values = tuple(ops.Value(i, *shape) for i, shape in enumerate(shapes))
    described = tuple(ops.Param(name, shape) for name, shape in params.items())
    return ops.Region(values, tuple(range(len(shapes) - 1)), (op.out,), described, (op,), "test")


REGIONS = {
    "encoder": encoder_region(EncoderConfig("small", layers=2, width=128, heads=2, ffn=512), 100),
    "gemm": region(
        ops.Linear(1, x=0, weight="w", bias="b"), [(700, 384), (700, 1536)], w=(1536, 384), b=(1536,)
    ),
    "residual": region(
        ops.Linear(2, x=0, weight="w", bias="b", residual=1),
        [(300, 128), (300, 320), (300, 320)],
        w=(320, 128),
        b=(320,),
    ),
    "attention": region(ops.Attention(3, q=0, k=1, v=2, heads=6), [(1500, 384)] * 4),
    "layer_norm": region(ops.LayerNorm(1, x=0, gamma="g", beta="b"), [(1500, 384)] * 2, g=(384,), b=(384,)),
    "softmax": region(ops.Softmax(1, x=0), [(100, 150)] * 2),
    "add": region(ops.Add(2, x=0, y=1), [(100, 150)] * 3),
}


@every_width
@pytest.mark.parametrize("name", REGIONS)
def test_words_of_programs(name: str, columns: int) -> None:
    """What aie-translate writes for a program's commands is what `lowering` encodes, up to repeated token ids."""
    program = lower(REGIONS[name], columns=columns)
    assert difference_in_effect(program.words.tolist(), words_of(program).tolist()) is None


@every_width
def test_words_on_the_overlay(columns: int) -> None:
    """The same where mlir-aie chooses the channels: the FIFOs' names instead of channel numbers."""
    program = lower(REGIONS["encoder"], columns=columns)
    assert difference_in_effect(program.words.tolist(), words_of(program, whole=True).tolist()) is None


@every_width
def test_routes_let_the_tokens_of_every_shim_pass(columns: int) -> None:
    array = overlay(columns)
    assert len(re.findall(rf"rule\(31, {array.token_id}\b", resources(columns))) == columns


def test_every_pass_of_the_driver_is_known_to_its_aie_opt() -> None:
    """But those of vectors, which an mlir-aie may have been built without."""
    chosen, known = driver()
    listed = {name for steps in (chosen.resources, chosen.sequence, chosen.core) for name in flat(steps)}
    assert listed - known <= {VECTORS, INTRINSICS}
