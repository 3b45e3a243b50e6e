"""Regions whose numbers of rows are symbolic: one graph of Dynamo's for all lengths, prepared when a call needs one.

A length is nothing that anything is compiled for: instruction streams are data, and packed weights are the same for all
lengths. So a call at a new length writes the streams of its bucket (rows rounded up to blocks, on the devices that
have streams) and what depends on the length itself, and packs no weights. What was prepared is kept for the `KEPT`
lengths used last. The result has the bits of a graph that was compiled for that length.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor, fx

from torch_xdna.devices import Device, Executable
from torch_xdna.devices.profiler_range import device_range
from torch_xdna.errors import DeviceError
from torch_xdna.execution.borders import entering, leaving
from torch_xdna.execution.recipes import Recipe, pack
from torch_xdna.execution.weight_store import WeightStore
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.ops import Region
from torch_xdna.matching.layout import Size, at, dims_at, size_of, traced_sizes
from torch_xdna.partitioning.regions import GraphRegion

KEPT = 16  # lengths of a region, and sizes (batch and length) of its border
REASON = "any length: lowered when a call needs it"
_FIXED = "the device takes fixed lengths only: compile with dynamic=False"

Rows = tuple[int, ...]


class AnyLength:
    """A region at any length on one device; `rows` are those of `lengths`, in its order."""

    def __init__(
        self, device: Device, region: Region, lengths: Sequence[int], recipes: tuple[Recipe, ...]
    ) -> None:
        self._prepare = getattr(device, "prepare_length", None)
        self._region, self._lengths = region, tuple(lengths)
        self._name = f"{region.name} on {device.name}"
        self._lock = threading.Lock()
        self._executables: OrderedDict[Rows, Executable] = OrderedDict()
        first = self._at(tuple(region.value(i).rows for i in self._lengths))  # refuses before the first call
        self.weights = WeightStore(lambda sources: pack(first, recipes, sources))

    @property
    def executables(self) -> list[Any]:
        """Those of the lengths used last."""
        with self._lock:
            return list(self._executables.values())

    @property
    def executable(self) -> AnyLength:
        return self

    def run(self, inputs: Sequence[Tensor], sources: Sequence[Tensor], rows: Rows) -> list[Tensor]:
        """Inputs and results as an executable's, of that length. Raises DeviceError if it can't be lowered."""
        try:
            executable = self._at(rows)
        except LoweringError as error:
            raise DeviceError(f"at {'/'.join(map(str, rows))} rows {error}") from error

        def once(packed: Any) -> list[Tensor]:
            with device_range(self._name):
                return executable.run(inputs, packed)

        return self.weights.use(sources, once)

    def _at(self, rows: Rows) -> Executable:
        if self._prepare is None:
            raise LoweringError(_FIXED)
        with self._lock:
            if rows in self._executables:
                self._executables.move_to_end(rows)
            else:
                self._executables[rows] = self._prepare(self._of(rows), frozenset(self._lengths))
                while len(self._executables) > KEPT:
                    self._executables.popitem(last=False)
            return self._executables[rows]

    def _of(self, rows: Rows) -> Region:
        now = dict(zip(self._lengths, rows))
        values = tuple(replace(v, rows=now.get(v.id, v.rows)) for v in self._region.values)
        return replace(self._region, values=values)


class Ends(NamedTuple):
    """How a region's tensors come and go at one size of batch and length; `rows` for AnyLength."""

    rows: Rows
    inputs: list[Callable[[Tensor], Tensor]]
    outputs: list[tuple[int, Callable[[Tensor], Tensor]]]


class EndsBySize:
    """The ends of a region with symbolic rows. `more`: nodes of the graph that must be read to know a size."""

    def __init__(self, gm: fx.GraphModule, part: GraphRegion, reads: Sequence[fx.Node]) -> None:
        self._part = part
        self._kept: OrderedDict[Rows, Ends] = OrderedDict()
        symbols = sorted(traced_sizes(gm.graph), key=str)
        self.more: list[fx.Node] = []
        self._where: list[tuple[Any, int, int | None]] = []
        for symbol in symbols:
            node = next((n for n in reads if symbol in _sizes_of(n)), None)
            if node is None and symbol in _symbols(part):
                node = next(n for n in gm.graph.find_nodes(op="placeholder") if symbol in _sizes_of(n))
                self.more.append(node)
            if node is not None:
                index = [*reads, *self.more].index(node)
                self._where.append((symbol, index, _sizes_of(node)[symbol]))

    def of(self, args: Sequence[Any]) -> Ends:
        """For the arguments of a call: the reads, then `more`."""
        key = tuple(args[i] if dim is None else args[i].shape[dim] for _, i, dim in self._where)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._make(dict(zip((s for s, *_ in self._where), map(int, key))))
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def _make(self, sizes: Mapping[Any, int]) -> Ends:
        part, region = self._part, self._part.region
        rows = {i: at(expr, sizes) for i, expr in part.lengths.items()}
        inputs = [
            entering(
                dims_at(b.dims, sizes), rows.get(v, region.value(v).rows), region.value(v).cols, b.windows
            )
            for b, v in zip(part.inputs, region.inputs)
        ]
        outputs = [(b.index, leaving(b.node, dims_at(b.dims, sizes))) for b in part.outputs]
        return Ends(tuple(rows[i] for i in used_lengths(part)), inputs, outputs)


def used_lengths(part: GraphRegion) -> tuple[int, ...]:
    """The values with symbolic rows that fusion left over."""
    return tuple(v.id for v in part.region.values if v.id in part.lengths)


def _symbols(part: GraphRegion) -> set[Any]:
    sizes: list[Size] = [*part.lengths.values()]
    for border in (*part.inputs, *part.outputs):
        sizes += [x for dim in border.dims for axis in dim for x in (axis.size, axis.stride)]
    return {symbol for size in sizes if not isinstance(size, int) for symbol in size.free_symbols}


def _sizes_of(node: fx.Node) -> dict[Any, int | None]:
    """The symbols that a tensor's sizes (or a size itself) are, and as which dimension."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        sizes = [size_of(s) for s in value.shape]
        return {s: i for i, s in enumerate(sizes) if not isinstance(s, int) and s.is_Symbol}
    size = getattr(getattr(value, "node", None), "expr", None)
    return {size: None} if size is not None and size.is_Symbol else {}
