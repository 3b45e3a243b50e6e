"""The overlay: tiles, object FIFOs, buffers, kernels and the core program, as one description for all its
readers.

`overlay(columns)` is the whole configuration of the array; nothing in it depends on a model. A variant of it can do
less (`lowering.overlay.variants`). Readers are the MLIR printer (`lowering.overlay.mlir`), the picture
(`lowering.overlay.picture`) and the array simulator (`torch_xdna.devices.array`).

Three paths, one object of 8 KB at a core on each:

    A   shim c -> memtile c -> the cores of one row        (MM2S 0 of the shim)
    B   shim c -> memtile c -> the cores of column c       (MM2S 1)
    C   cores of column c -> joined in memtile c -> shim   (S2MM 0)

With 4 columns memtile c feeds row c. With fewer columns each A path serves 4 / columns rows: its object at
the shim and the memtile holds one block per row, and the memtile distributes the parts.

Design notes:
- The shim's channel numbers follow from the order in which mlir-aie meets the FIFOs (A before B), so the
  order of `Overlay.fifos` is part of the contract; the instruction words name channels by number.
- FIFO depths at the cores are what fits: 61.5 of 64 KB are used, so neither a second C object nor a third A
  or B object (8 KB each) has room.
- A memtile's descriptors limit the depth of A with one column. mlir-aie gives the channel that fills (or
  empties) a divided object one descriptor per part and buffer, and an even channel can only use the first
  half of the descriptors. Four buffers of four parts would want 32 of the 24 for even channels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch_xdna.kernels_xdna1.contract import CONSTANT_BYTES, HEADER_BYTES
from torch_xdna.kernels_xdna1.description import KERNELS as DESCRIBED
from torch_xdna.lowering import limits
from torch_xdna.lowering.errors import LimitError
from torch_xdna.lowering.overlay.core_program import ACCUMULATOR, HEADER, Acquire, Loop, walk
from torch_xdna.lowering.overlay.variants import FULL, Variant

ROWS = limits.CORE_ROWS
COLUMN_CHOICES = (1, 2, 4)
OBJECT_BYTES = limits.BLOCK_BYTES
HEADER_WORDS = HEADER_BYTES // 4  # 32 from the header object, 32 of core-local state
KERNEL_OBJECT_FILE = "overlay_kernels.o"

# What the operands of the kernels are, in order: object (8 KB), acc, hdr, int (32-bit).
_KINDS = {"sums": ACCUMULATOR, "header": HEADER, "int": "int"}
KERNELS: dict[str, tuple[str, ...]] = {
    kernel.name: tuple(_KINDS.get(operand.order, "object") for operand in kernel.operands)
    for kernel in DESCRIBED
}


@dataclass(frozen=True)
class Tile:
    """`row` 0 is the shim, 1 the memtile, 2..5 the cores of rows 0..3."""

    column: int
    row: int

    @property
    def kind(self) -> str:
        return ("shim", "memtile")[self.row] if self.row < 2 else "core"

    def __str__(self) -> str:
        if self.kind == "core":
            return f"core (row {self.row - 2}, column {self.column})"
        return f"{self.kind} {self.column}"


@dataclass(frozen=True)
class Fifo:
    """Objects of `object_bytes` from `source` to all of `targets`; `depth` buffers at an end with memory."""

    name: str
    path: str  # "A", "B", "C": also the name of the core's port
    source: Tile
    targets: tuple[Tile, ...]
    depth: int
    object_bytes: int = OBJECT_BYTES


@dataclass(frozen=True)
class Link:
    """In a memtile: objects of `sources` leave by `targets`, through the same buffers.

    One of each: forwarded. Several sources: joined, source i lies at `offsets[i]` of the target's object.
    Several targets: distributed, target i gets the part at `offsets[i]` of the source's object. Offsets in
    bytes.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Buffer:
    """A static buffer of every core."""

    name: str
    dtype: str  # "i32" or "f32"
    count: int

    @property
    def bytes(self) -> int:
        return 4 * self.count


@dataclass(frozen=True)
class Overlay:
    columns: int
    fifos: tuple[Fifo, ...]
    links: tuple[Link, ...]
    buffers: tuple[Buffer, ...]
    program: Loop
    stack_bytes: int
    token_id: int = limits.TOKEN_ID
    """The controller id of the tokens that the routes to the controller let pass: aiecc writes `rule(31, 15, ...)` into
    the stream switch of each shim."""
    variant: Variant = FULL

    def fifo(self, name: str) -> Fifo:
        return next(f for f in self.fifos if f.name == name)

    @property
    def tiles(self) -> tuple[Tile, ...]:
        return tuple(Tile(c, r) for c in range(self.columns) for r in range(2 + ROWS))

    @property
    def cores(self) -> tuple[Tile, ...]:
        return tuple(t for t in self.tiles if t.kind == "core")

    @property
    def rows_per_a_object(self) -> int:
        """Blocks in an A object at the shim: 1, 2 or 4."""
        return ROWS // self.columns

    def port(self, core: Tile, path: str) -> Fifo:
        """The FIFO behind port "A", "B" or "C" of a core."""
        ends = [f for f in self.fifos if f.path == path and core in (*f.targets, f.source)]
        return next(f for f in ends if f.source.kind != "shim" and f.targets[0].kind != "shim")


@functools.cache
def overlay(columns: int = limits.COLUMNS.maximum, variant: Variant = FULL) -> Overlay:
    """The overlay for `columns` = 1, 2 or 4 columns; raises `LimitError` if it does not fit the hardware."""
    if columns not in COLUMN_CHOICES:
        raise LimitError(
            f"columns: the overlay exists for {COLUMN_CHOICES} columns, {columns} were asked for"
        )
    fifos: list[Fifo] = []
    links: list[Link] = []
    per_object = ROWS // columns
    for c in range(columns):
        shim, memtile = Tile(c, 0), Tile(c, 1)
        cores = tuple(Tile(c, 2 + r) for r in range(ROWS))
        rows = range(c * per_object, (c + 1) * per_object)
        depth = 4 if columns > 1 else 2
        fifos.append(Fifo(f"A_in{c}", "A", shim, (memtile,), depth, per_object * OBJECT_BYTES))
        for r in rows:
            fifos.append(Fifo(f"A_row{r}", "A", memtile, tuple(Tile(q, 2 + r) for q in range(columns)), 2))
        parts = tuple(i * OBJECT_BYTES for i in range(per_object)) if per_object > 1 else ()
        links.append(Link((f"A_in{c}",), tuple(f"A_row{r}" for r in rows), parts))
        fifos.append(Fifo(f"B_in{c}", "B", shim, (memtile,), 4))
        fifos.append(Fifo(f"B_col{c}", "B", memtile, cores, 2))
        links.append(Link((f"B_in{c}",), (f"B_col{c}",)))
        joined = [Fifo(f"C_core{c}_{r}", "C", core, (memtile,), 1) for r, core in enumerate(cores)]
        fifos += [*joined, Fifo(f"C_out{c}", "C", memtile, (shim,), 2, ROWS * OBJECT_BYTES)]
        parts = tuple(i * OBJECT_BYTES for i in range(ROWS))
        links.append(Link(tuple(f.name for f in joined), (f"C_out{c}",), parts))
    buffers = (Buffer(HEADER, "i32", HEADER_WORDS), Buffer(ACCUMULATOR, "f32", limits.BLOCK**2))
    result = Overlay(
        columns, tuple(fifos), tuple(links), buffers, variant.program, limits.CORE_STACK, variant=variant
    )
    check(result)
    return result


def memory_use(array: Overlay, tile: Tile) -> dict[str, int]:
    """Bytes of a core's or memtile's memory by user. Linked FIFOs share the buffers of the larger side."""
    use: dict[str, int] = {}
    if tile.kind == "core":
        fifos = [f for f in array.fifos if tile in (f.source, *f.targets)]
        use = {"stack": array.stack_bytes, "constants": CONSTANT_BYTES}
        use |= {b.name: b.bytes for b in array.buffers}
        use |= {f.name: f.depth * f.object_bytes for f in fifos}
        use["cursors"] = 4 * len(fifos)  # mlir-aie's: which buffer of each FIFO is next
    elif tile.kind == "memtile":
        for link in array.links:
            ends = [array.fifo(n) for n in (*link.sources, *link.targets)]
            if tile in (ends[0].source, *ends[0].targets):
                largest = max(ends, key=lambda f: f.object_bytes * f.depth)
                use[largest.name] = largest.object_bytes * largest.depth
    return use


def check(array: Overlay) -> None:
    """Raise `LimitError` for memory, DMA channels or descriptors that no tile has, and for a core that would wait
    for ever because it wants more objects of a FIFO at once than there are buffers.
    """
    for statement in walk(array.program):
        if isinstance(statement, Acquire):
            for fifo in {array.port(core, statement.port).name for core in array.cores}:
                wanted, depth = len(statement.names), array.fifo(fifo).depth
                if wanted > depth:
                    raise LimitError(
                        f"FIFO depth: the core program holds {wanted} objects of {fifo}, depth {depth}"
                    )
    for tile in array.tiles:
        outgoing = sum(tile == f.source for f in array.fifos)
        incoming = sum(tile in f.targets for f in array.fifos)
        channels = {
            "shim": limits.SHIM_CHANNELS,
            "memtile": limits.MEMTILE_CHANNELS,
            "core": limits.CORE_CHANNELS,
        }[tile.kind]
        channels.check(outgoing, f"outgoing FIFOs of {tile}")
        channels.check(incoming, f"incoming FIFOs of {tile}")
        if tile.kind == "shim":
            continue
        use = memory_use(array, tile)
        memory = limits.CORE_MEMORY if tile.kind == "core" else limits.MEMTILE_MEMORY
        parts = ", ".join(f"{name} {size}" for name, size in use.items())
        memory.check(sum(use.values()), f"the memory of {tile} ({parts})")
        if tile.kind == "memtile":
            for parity, count in zip(("even", "odd"), descriptors(array, tile)):
                what = f"the number of descriptors of the {parity} channels of {tile}"
                limits.MEMTILE_DESCRIPTORS.check(count, what)


def descriptors(array: Overlay, tile: Tile) -> tuple[int, int]:
    """Descriptors of a memtile's even and odd channels, as mlir-aie assigns them.

    Channels are numbered per direction in the order of `fifos`. Each has a descriptor per buffer of its link;
    the channel of the object that a link divides or joins has one per part of each.
    """
    counts = [0, 0]
    incoming = [f for f in array.fifos if tile in f.targets]
    outgoing = [f for f in array.fifos if tile == f.source]
    for channels in (incoming, outgoing):
        for number, fifo in enumerate(channels):
            link = next(k for k in array.links if fifo.name in (*k.sources, *k.targets))
            ends = [array.fifo(name) for name in (*link.sources, *link.targets)]
            whole = max(ends, key=lambda f: f.object_bytes)  # the side that owns the buffers
            parts = len(ends) - 1 if fifo is whole else 1
            counts[number % 2] += whole.depth * parts
    return counts[0], counts[1]
