"""One region in a graph: tensors in, the device's work, tensors out; shared executables and packed weights."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn

from torch_xdna.devices import Device, Executable
from torch_xdna.devices.profiler_range import device_range
from torch_xdna.errors import DeviceError
from torch_xdna.execution.any_length import AnyLength, Ends, EndsBySize, used_lengths
from torch_xdna.execution.borders import entering, leaving
from torch_xdna.execution.lengths import ByRow, Runs, by_row, with_rows
from torch_xdna.execution.recipes import Recipe, pack, recipes_of
from torch_xdna.execution.recovery import Recovery, eager_twin, without_data, without_grad
from torch_xdna.execution.weight_store import WeightStore
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.ops import Region
from torch_xdna.matching.views import roots
from torch_xdna.partitioning.regions import GraphRegion


class RegionRefused(Exception):
    """The device can't take the region that computes `nodes`."""

    def __init__(self, cause: LoweringError, nodes: tuple[fx.Node, ...]) -> None:
        super().__init__(str(cause))
        self.nodes = nodes


def region_call(gm: fx.GraphModule, part: GraphRegion, device: Device, recovery: Recovery) -> RegionCall:
    try:
        return RegionCall(gm, part, device, recovery)
    except LoweringError as error:
        raise RegionRefused(error, part.nodes) from error


class RegionCall(nn.Module):
    """A region in a graph: takes inputs, then what weights come from; returns the exported tensors."""

    def __init__(self, gm: fx.GraphModule, part: GraphRegion, device: Device, recovery: Recovery) -> None:
        super().__init__()
        region = part.region
        sources = list(dict.fromkeys(n for w in part.weights.values() for n in sorted(roots(w.node))))
        own = [b.node for b in part.inputs] + sources
        self.eager, more = eager_twin(gm, part, list(dict.fromkeys(own)))
        self.reads, self.recovery = own + more, recovery
        self._sources = slice(len(part.inputs), len(own))
        self._eager_args = [self.reads.index(n) for n in dict.fromkeys(self.reads)]
        self.region = region
        recipes = recipes_of(part.weights, sources)
        self.prepared: Runs | AnyLength
        self._ends: EndsBySize | Ends
        if part.lengths:
            self.prepared = _prepared_any(device, part, recipes)
            self._ends = EndsBySize(gm, part, self.reads)
            self.reads = self.reads + self._ends.more
        elif by_row(region, part.batch):
            self.prepared = ByRow(
                lambda rows: _prepared_rows(device, region, recipes, rows), region.values[0].rows
            )
        else:
            self.prepared = _prepared(device, region, recipes)
        if not part.lengths:
            inputs = [
                entering(b.dims, region.value(v).rows, region.value(v).cols, b.windows)
                for b, v in zip(part.inputs, region.inputs)
            ]
            self._ends = Ends((), inputs, [(b.index, leaving(b.node, b.dims)) for b in part.outputs])
        indices = [b.index for b in part.outputs]
        # A value exported twice must not become two names for one memory.
        self._again = [index in indices[:i] for i, index in enumerate(indices)]

    def forward(self, *args: Tensor) -> list[Tensor]:
        if without_data(args):
            return self._run_eager(args)
        ends = self._ends if isinstance(self._ends, Ends) else self._ends.of(args)
        try:
            results = self._on_device(args, ends)
        except DeviceError as error:
            return self.recovery.recover(self.region.name, error, lambda: self._run_eager(args))
        return [
            leave(results[i].clone() if again else results[i])
            for (i, leave), again in zip(ends.outputs, self._again)
        ]

    def _run_eager(self, args: Sequence[Tensor]) -> list[Tensor]:
        return without_grad(self.eager, [args[i] for i in self._eager_args])

    def _on_device(self, args: Sequence[Tensor], ends: Ends) -> list[Tensor]:
        inputs = [enter(t) for enter, t in zip(ends.inputs, args)]
        if isinstance(self.prepared, AnyLength):
            return self.prepared.run(inputs, args[self._sources], ends.rows)
        return self.prepared.run(inputs, args[self._sources])


class Prepared:
    """An executable and the weights packed for it, shared by graphs with equal regions (other batches)."""

    def __init__(self, executable: Executable, recipes: tuple[Recipe, ...], name: str) -> None:
        self.executable = executable
        self._name = name
        self.weights = WeightStore(lambda sources: pack(executable, recipes, sources))

    def run(self, inputs: Sequence[Tensor], sources: Sequence[Tensor]) -> list[Tensor]:
        def once(packed: Any) -> list[Tensor]:
            with device_range(self._name):
                return self.executable.run(inputs, packed)

        return self.weights.use(sources, once)


_PREPARED: weakref.WeakValueDictionary[tuple, Prepared | AnyLength] = weakref.WeakValueDictionary()


def _prepared_any(device: Device, part: GraphRegion, recipes: tuple[Recipe, ...]) -> AnyLength:
    """Shared by graphs whose regions differ by nothing but what their symbols are called."""
    lengths = used_lengths(part)
    key = (device, part.region, recipes, lengths)
    found = _PREPARED.get(key)
    if not isinstance(found, AnyLength):
        found = _PREPARED[key] = AnyLength(device, part.region, lengths, recipes)
    return found


def _prepared(device: Device, region: Region, recipes: tuple[Recipe, ...]) -> Prepared:
    key = (device, region, recipes)
    found = _PREPARED.get(key)
    if not isinstance(found, Prepared):
        name = f"{region.name} on {device.name}"
        found = _PREPARED[key] = Prepared(device.prepare(region), recipes, name)
    return found


def _prepared_rows(device: Device, region: Region, recipes: tuple[Recipe, ...], rows: int) -> Prepared:
    """The region for another number of rows."""
    region = with_rows(region, rows)
    shapes = {p.name: p.shape for p in region.params}
    return _prepared(device, region, tuple(r._replace(shape=shapes[r.param]) for r in recipes))


def forget() -> None:
    """Free all packed weights: after torch._dynamo.reset(), which itself keeps the code behind a graph break."""
    for prepared in list(_PREPARED.values()):
        prepared.weights.clear()
    _PREPARED.clear()
