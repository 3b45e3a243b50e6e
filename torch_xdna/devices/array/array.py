"""The array as an overlay wires it: shims, memtiles, cores, FIFOs, one clock."""

from __future__ import annotations

from collections.abc import Mapping

from torch_xdna.devices.array.context import Context, Kernel
from torch_xdna.devices.array.core import Core, kernel_costs
from torch_xdna.devices.array.fabric import Broadcast, InPort, Join, OutPort, Store
from torch_xdna.devices.array.interpreter import compile_program
from torch_xdna.devices.array.shim import MM2S, S2MM, Bus, Channel, ReadChannel, Shim, WriteChannel
from torch_xdna.lowering.overlay.description import Overlay
from torch_xdna.lowering.time.costs import Costs


class Array:
    """The configured array: everything that lasts from run to run."""

    def __init__(self, overlay: Overlay, costs: Costs, kernels: Mapping[str, Kernel]):
        self.overlay = overlay
        self.context = Context(costs)
        self.stores: list[Store] = []
        self.joins: list[Join] = []
        self._connect(kernels)
        for core in self.cores:
            core.start()

    def _connect(self, kernels: Mapping[str, Kernel]) -> None:
        """Build ports, memtiles and channels from the overlay's FIFOs and links."""
        overlay, context = self.overlay, self.context
        read_bus, write_bus = Bus(), Bus()
        ports: dict[str, dict[str, InPort | OutPort]] = {str(t): {} for t in overlay.cores}
        channels: dict[int, dict[tuple[str, int], Channel]] = {c: {} for c in range(overlay.columns)}
        for link in overlay.links:
            sources, targets = (
                [overlay.fifo(n) for n in link.sources],
                [overlay.fifo(n) for n in link.targets],
            )
            if sources[0].source.kind == "shim":
                whole = sources[0]
                store = Store(whole.name, whole.depth, whole.object_bytes)
                self.stores.append(store)
                for i, fifo in enumerate(targets):
                    ends = [InPort(fifo.name, fifo.depth, fifo.object_bytes) for _ in fifo.targets]
                    for tile, port in zip(fifo.targets, ends):
                        ports[str(tile)][fifo.path] = port
                    Broadcast(context, fifo.name, store, (*link.offsets, 0)[i], fifo.object_bytes, ends)
                column = channels[whole.source.column]
                number = sum(direction == MM2S for direction, _ in column)
                column[MM2S, number] = ReadChannel(context, read_bus, whole.source.column, number, store)
            else:
                whole = targets[0]
                parts = [OutPort(context, f.name, f.depth, f.object_bytes, i) for i, f in enumerate(sources)]
                for fifo, part in zip(sources, parts):
                    ports[str(fifo.source)][fifo.path] = part
                join = Join(whole.name, whole.depth, whole.object_bytes, parts)
                self.joins.append(join)
                column = channels[whole.targets[0].column]
                number = sum(direction == S2MM for direction, _ in column)
                column[S2MM, number] = WriteChannel(context, write_bus, whole.targets[0].column, number, join)
        compiled, cycles = compile_program(overlay.program), kernel_costs(context.costs)
        self.cores = [
            Core(context, tile, overlay, compiled, kernels, cycles, ports[str(tile)])
            for tile in overlay.cores
        ]
        self.shims = [Shim(c, channels[c]) for c in range(overlay.columns)]
        self.channels = [channel for shim in self.shims for channel in shim.channels.values()]
