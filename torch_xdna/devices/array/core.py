"""One core: its memory, its ports, and the core program as a generator that events resume."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from torch_xdna.devices.array.context import Context, Kernel
from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.devices.array.fabric import InPort, Memory, OutPort
from torch_xdna.devices.array.header import check_header
from torch_xdna.devices.array.interpreter import MOST_OBJECTS, Compiled, where_in
from torch_xdna.kernels_xdna1.contract import HEADER_WORD, PANEL_GELU, ROW_KINDS, BlockOrder
from torch_xdna.lowering.overlay.description import HEADER_WORDS, KERNELS, Overlay, Tile
from torch_xdna.lowering.time.costs import Costs

_COPIED_HEADER_BYTES = 4 * HEADER_WORDS // 2
PANEL_WORDS = 4 * (PANEL_GELU - 1)  # byte offset of output order and GELU in a parameter block


def kernel_costs(costs: Costs) -> dict[str, Any]:
    """Cycles of a call: kernel -> [variant ->] by how many objects were acquired for it."""

    def by_objects(name: str, variant: str = "") -> tuple[float, ...]:
        cycles = costs.kernel_cycles(name, variant)
        return tuple(float(cycles + n * costs.object_overhead) for n in range(MOST_OBJECTS + 1))

    table: dict[str, Any] = {}
    for name in KERNELS:
        if name in ("gemm_residual", "attn_q"):
            table[name] = (by_objects(name, "skip"), by_objects(name))
        elif name == "gemm_params":
            table[name] = (by_objects(name), by_objects(name, "gelu"))
        elif name == "gemm_finish":
            table[name] = [by_objects(name, variant) for variant in ("", "keys", "values", "gelu")]
        elif name == "row_stats":  # the kinds without a statistics pass never call it
            table[name] = [by_objects(name, k.name if k.statistics else "layer_norm") for k in ROW_KINDS]
        elif name == "row_apply":
            table[name] = [by_objects(name, kind.name) for kind in ROW_KINDS]
        else:
            table[name] = by_objects(name)
    return table


def no_kernels() -> dict[str, Kernel]:
    """For timing alone: nothing is computed, except the header, which the core program itself reads."""

    def nothing(*_: Any) -> None:
        return None

    def read_header(a: int, hdr: int) -> None:
        ctypes.memmove(hdr, a, _COPIED_HEADER_BYTES)

    return {**dict.fromkeys(KERNELS, nothing), "read_header": read_header}


class Core:
    """`ports` and `buffers` by the names that the core program uses; addresses are plain integers."""

    def __init__(
        self,
        context: Context,
        tile: Tile,
        overlay: Overlay,
        compiled: Compiled,
        kernels: Mapping[str, Kernel],
        costs: dict[str, Any],
        ports: dict[str, InPort | OutPort],
    ):
        self.context, self.tile, self.variant = context, tile, overlay.variant
        self.row, self.column = tile.row - 2, tile.column
        self.ports = ports
        self.memories = {b.name: Memory(1, b.bytes) for b in overlay.buffers}
        self.buffers = {name: memory.addresses[0] for name, memory in self.memories.items()}
        words = ctypes.c_int32 * HEADER_WORDS
        self.header = memoryview(words.from_address(self.buffers["hdr"])).cast("B").cast("i")
        self.kernels, self.costs = kernels, costs
        self.op = ""
        self.finish = 0  # which of gemm_finish's variants the panel asks for
        self.calls = 0
        self.busy = 0.0
        self.waits_for: InPort | OutPort | None = None
        self.compiled = compiled
        self.program = self.compiled.function(self)

    def start(self) -> None:
        """From power-up to the first wait: for a header."""
        self.resume(None)

    def resume(self, _: Any) -> None:
        wanted = next(self.program)
        if wanted.__class__ is float:
            self.waits_for = None
            self.calls += 1
            self.busy += wanted
            if self.context.trace is not None:
                now = self.context.engine.now
                self.context.trace.add(
                    str(self.tile), where_in(self.compiled, self.program), now, now + wanted
                )
            self.context.engine.after(wanted, self.resume)
        else:
            self.waits_for = wanted
            wanted.waiter = self.resume

    @property
    def idle(self) -> bool:
        """Whether it waits for the next header."""
        return self.op == "" and self.waits_for is self.ports["A"]

    def where(self) -> str:
        return where_in(self.compiled, self.program)

    def activates_in_sums(self, panel: int) -> bool:
        """Whether gemm_params applies the GELU that the parameter block at an address asks for; if not, and there is
        one, gemm_finish does (kernels/common.hpp, finish_activates)."""
        order, gelu = (ctypes.c_int32 * 2).from_address(panel + PANEL_WORDS)
        in_sums = bool(gelu) and (self.header[HEADER_WORD["extra"]] != 0 or order != BlockOrder.A)
        self.finish = 3 if gelu and not in_sums else order if order in tuple(BlockOrder) else BlockOrder.A
        return in_sums

    def check_header(self) -> None:
        check_header(self.header, self.tile, self.variant)

    def refuse_op(self, op: int) -> None:
        raise HardwareFault(
            "header",
            f"{self.tile} got a header with unknown op {op}: its overlay '{self.variant.name}' has no such case "
            "(1 gemm, 2 attention, 3 row op)",
        )

    def refuse_trips(self, word: int, trips: int) -> None:
        raise HardwareFault("header", f"{self.tile} got a header whose word {word} asks for {trips} trips")
