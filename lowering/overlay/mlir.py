"""The overlay as MLIR text for mlir-aie (`aiecc`), in the syntax of mlir-aie 1.3 and its main of April 2026.

Design notes, all found by running mlir-aie's passes (main of 23 April 2026) on what this prints; the tests in
tests/overlay repeat it where `aie-opt` is installed:
- The device is as wide as the overlay, so that the driver needs no more columns free and aiecc's instruction
  header has our count; four columns are plain `npu1`.
- `link_with` is an attribute of the kernel's declaration.
- `dynamic_objfifo_lowering` on a core makes trip counts legal that are only known at run time.
- A switch is printed as one `scf.if` after another, never as `scf.index_switch`. The pass that turns FIFOs into
  locks takes an object as still held unless its release comes earlier in the same block or an enclosing one. Cases
  of one switch are no such blocks, so an acquire in the second case found the object of the first case "held" and
  got no lock: no message, a core that reads buffers before they are filled.
- Depths are lists, one per end. A single number is a wish: a core that acquires two objects at once gets three
  buffers, and the third A buffer does not fit.
- Cores ask for the allocation scheme "basic-sequential". The default spreads buffers over the four banks up to
  the end of the memory, and the linker has no byte left for the kernels' constants.
The runtime sequence is empty: the instruction words of a model come from `lowering`, never from aiecc. It
only fixes the kernel's signature (two arguments: weights and activations).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_xdna.lowering.overlay.core_program import (
    COLUMN,
    ROW,
    Acquire,
    Call,
    Loop,
    Release,
    Statement,
    Switch,
    Word,
)
from torch_xdna.lowering.overlay.description import KERNEL_OBJECT_FILE, KERNELS, Overlay, Tile

DEVICES = {1: "npu1_1col", 2: "npu1_2col", 4: "npu1"}
BLOCK_TYPE = "memref<4096xbf16>"
_ENDLESS = 4294967295


def print_mlir(overlay: Overlay) -> str:
    """The module as text: kernels, tiles, FIFOs, links, then buffers and program of each core."""
    types = {"object": BLOCK_TYPE, "int": "i32"}
    types |= {b.name: f"memref<{b.count}x{b.dtype}>" for b in overlay.buffers}
    lines = ["module {", f"  aie.device({DEVICES[overlay.columns]}) {{"]
    for name in overlay.variant.kernels:
        signature = ", ".join(types[o] for o in KERNELS[name])
        lines.append(
            f'    func.func private @{name}({signature}) attributes {{link_with = "{KERNEL_OBJECT_FILE}"}}'
        )
    for tile in overlay.tiles:
        scheme = ' {allocation_scheme = "basic-sequential"}' if tile.kind == "core" else ""
        lines.append(f"    {_tile(tile)} = aie.tile({tile.column}, {tile.row}){scheme}")
    lines += _fifos(overlay)
    for core in overlay.cores:
        lines += [f"    {line}" for line in _Core(overlay, core, types).lines()]
    lines += ["    aie.runtime_sequence(%weights: memref<1xi32>, %activations: memref<1xi32>) {", "    }"]
    return "\n".join([*lines, "  }", "}", ""])


def _tile(tile: Tile) -> str:
    return f"%t{tile.column}_{tile.row}"


def _fifos(overlay: Overlay) -> list[str]:
    lines = []
    for fifo in overlay.fifos:
        targets = ", ".join(map(_tile, fifo.targets))
        depths = ", ".join([str(fifo.depth)] * (1 + len(fifo.targets)))
        lines.append(
            f"    aie.objectfifo @{fifo.name}({_tile(fifo.source)}, {{{targets}}}, [{depths}])"
            f" : !aie.objectfifo<memref<{fifo.object_bytes // 2}xbf16>>"
        )
    for link in overlay.links:
        sources, targets = (", ".join(f"@{n}" for n in names) for names in (link.sources, link.targets))
        elements = ", ".join(str(o // 2) for o in link.offsets)
        joined, distributed = (elements, "") if len(link.sources) > 1 else ("", elements)
        lines.append(f"    aie.objectfifo.link [{sources}] -> [{targets}]([{joined}] [{distributed}])")
    return lines


class _Core:
    """Prints one core; holds the numbering of SSA names."""

    def __init__(self, overlay: Overlay, tile: Tile, types: dict[str, str]):
        self.overlay, self.tile, self.types = overlay, tile, types
        self.suffix = f"{tile.column}_{tile.row - 2}"
        self.count = 0

    def lines(self) -> list[str]:
        buffers = [
            f'%{b.name}{self.suffix} = aie.buffer({_tile(self.tile)}) {{sym_name = "{b.name}{self.suffix}"}}'
            f" : {self.types[b.name]}"
            for b in self.overlay.buffers
        ]
        scope = {ROW: "%row", COLUMN: "%column"}
        scope |= {b.name: f"%{b.name}{self.suffix}" for b in self.overlay.buffers}
        body = self.statement(self.overlay.program, scope, "  ")
        return [
            *buffers,
            f"%core{self.suffix} = aie.core({_tile(self.tile)}) {{",
            "  %c0 = arith.constant 0 : index",
            "  %c1 = arith.constant 1 : index",
            f"  %max = arith.constant {_ENDLESS} : index",
            f"  %row = arith.constant {self.tile.row - 2} : i32",
            f"  %column = arith.constant {self.tile.column} : i32",
            *body,
            "  aie.end",
            f"}} {{stack_size = {self.overlay.stack_bytes} : i32, dynamic_objfifo_lowering = true}}",
        ]

    def statement(self, s: Statement, scope: dict[str, str], indent: str) -> list[str]:
        """The lines of one statement; adds the names it defines to `scope`."""
        if isinstance(s, Acquire):
            lines = self.acquire(s, scope)
        elif isinstance(s, Release):
            lines = [f"aie.objectfifo.release @{self.fifo(s.port)}({self.role(s.port)}, {s.count})"]
        elif isinstance(s, Call):
            lines = self.call(s, scope)
        elif isinstance(s, Switch):
            lines = self.switch(s, scope)
        else:
            lines = self.loop(s, scope)
        return [indent + line for line in lines]

    def block(self, body: Sequence[Statement], scope: dict[str, str]) -> list[str]:
        inner = dict(scope)
        return [line for s in body for line in self.statement(s, inner, "  ")]

    def acquire(self, s: Acquire, scope: dict[str, str]) -> list[str]:
        view, kind = self.fresh("s"), f"!aie.objectfifosubview<{BLOCK_TYPE}>"
        role = self.role(s.port)
        lines = [f"{view} = aie.objectfifo.acquire @{self.fifo(s.port)}({role}, {len(s.names)}) : {kind}"]
        for i, name in enumerate(s.names):
            scope[name] = self.fresh("v")
            lines.append(
                f"{scope[name]} = aie.objectfifo.subview.access {view}[{i}] : {kind} -> {BLOCK_TYPE}"
            )
        return lines

    def call(self, s: Call, scope: dict[str, str]) -> list[str]:
        lines: list[str] = []
        values, types = [], [self.types[o] for o in KERNELS[s.kernel]]
        for operand, kind in zip(s.operands, types, strict=True):
            if isinstance(operand, Word):
                values.append(self.word(operand, scope, lines))
            elif kind == "i32" and scope[operand].startswith("%i"):  # a loop variable, an index
                values.append(self.fresh("n"))
                lines.append(f"{values[-1]} = arith.index_cast {scope[operand]} : index to i32")
            else:
                values.append(scope[operand])
        lines.append(f"func.call @{s.kernel}({', '.join(values)}) : ({', '.join(types)}) -> ()")
        return lines

    def word(self, word: Word, scope: dict[str, str], lines: list[str]) -> str:
        """Load a header word as i32; appends to `lines`."""
        index, value = self.fresh("x"), self.fresh("w")
        lines.append(f"{index} = arith.constant {word.index} : index")
        lines.append(f"{value} = memref.load {scope['hdr']}[{index}] : {self.types['hdr']}")
        if not word.plus:
            return value
        constant, total = self.fresh("p"), self.fresh("w")
        lines.append(f"{constant} = arith.constant {word.plus} : i32")
        lines.append(f"{total} = arith.addi {value}, {constant} : i32")
        return total

    def switch(self, s: Switch, scope: dict[str, str]) -> list[str]:
        lines: list[str] = []
        value = self.word(s.on, scope, lines)
        for case in s.cases:
            constant, chosen = self.fresh("p"), self.fresh("e")
            lines.append(f"{constant} = arith.constant {case.value} : i32")
            lines.append(f"{chosen} = arith.cmpi eq, {value}, {constant} : i32")
            lines += [f"scf.if {chosen} {{", *self.block(case.body, scope), "}"]
        return lines

    def loop(self, s: Loop, scope: dict[str, str]) -> list[str]:
        lines: list[str] = []
        bound = "%max"
        if s.trips is not None:
            value, bound = self.word(s.trips, scope, lines), self.fresh("u")
            lines.append(f"{bound} = arith.index_cast {value} : i32 to index")
        variable = self.fresh(f"i_{s.variable}_")
        lines.append(f"scf.for {variable} = %c0 to {bound} step %c1 {{")
        return [*lines, *self.block(s.body, scope | {s.variable: variable}), "}"]

    def fifo(self, port: str) -> str:
        return self.overlay.port(self.tile, port).name

    def role(self, port: str) -> str:
        return "Produce" if self.overlay.port(self.tile, port).source == self.tile else "Consume"

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"%{prefix}{self.count}"
