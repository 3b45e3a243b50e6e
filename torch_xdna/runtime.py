"""What runs when a compiled graph is called: eager nodes as they were, each region as one call."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from lowering.errors import LoweringError
from lowering.ops import Region
from torch_xdna.adaptors import entering, leaving
from torch_xdna.devices import Device, Executable
from torch_xdna.errors import DeviceError
from torch_xdna.lengths import ByRow, Runs, by_row, with_rows
from torch_xdna.matching.scope import Weight
from torch_xdna.matching.views import roots
from torch_xdna.partition import Partition, Plan
from torch_xdna.profile.ranges import device_range
from torch_xdna.recovery import Recovery, eager_twin, without_data, without_grad
from torch_xdna.weights import WeightStore


def assemble(
    gm: fx.GraphModule, partition: Partition, device: Device, recovery: Recovery | None = None
) -> fx.GraphModule:
    """The graph with a call in place of each region; raises RegionRefused if the device can't take one."""
    recovery = recovery or Recovery()
    graph = fx.Graph()
    new: dict[fx.Node, fx.Node] = {}
    calls = {
        f"xdna_region_{i}": _region_call(gm, plan, device, recovery) for i, plan in enumerate(partition.plans)
    }
    names = iter(calls)
    for node in gm.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            new[node] = graph.node_copy(node)
    for step in partition.steps:
        if isinstance(step, fx.Node):
            new[step] = graph.node_copy(step, new.__getitem__)
            continue
        name = next(names)
        call = calls[name]
        result = graph.call_module(name, tuple(new[n] for n in call.reads))
        for i, border in enumerate(step.outputs):
            new[border.node] = graph.call_function(_item, (result, i))
    output = next(n for n in gm.graph.nodes if n.op == "output")
    graph.node_copy(output, new.__getitem__)
    attributes: dict[str, Any] = dict(calls)
    attributes.update((str(n.target), getattr(gm, str(n.target))) for n in gm.graph.find_nodes(op="get_attr"))
    return fx.GraphModule(attributes, graph)


class RegionRefused(Exception):
    """The device can't take the region that computes `nodes`."""

    def __init__(self, cause: LoweringError, nodes: tuple[fx.Node, ...]) -> None:
        super().__init__(str(cause))
        self.nodes = nodes


def _region_call(gm: fx.GraphModule, plan: Plan, device: Device, recovery: Recovery) -> RegionCall:
    try:
        return RegionCall(gm, plan, device, recovery)
    except LoweringError as error:
        raise RegionRefused(error, plan.nodes) from error


def _item(results: list[Tensor], i: int) -> Tensor:
    return results[i]


class RegionCall(nn.Module):
    """A region in a graph: takes inputs, then what weights come from; returns the exported tensors."""

    def __init__(self, gm: fx.GraphModule, plan: Plan, device: Device, recovery: Recovery) -> None:
        super().__init__()
        region = plan.region
        sources = list(dict.fromkeys(n for w in plan.weights.values() for n in sorted(roots(w.node))))
        own = [b.node for b in plan.inputs] + sources
        self.eager, more = eager_twin(gm, plan, list(dict.fromkeys(own)))
        self.reads, self.recovery = own + more, recovery
        self._sources = slice(len(plan.inputs), len(own))
        self._eager_args = [self.reads.index(n) for n in dict.fromkeys(self.reads)]
        self.region = region
        recipes = _recipes(plan.weights, sources)
        self.prepared: Runs
        if by_row(region, plan.batch):
            self.prepared = ByRow(
                lambda rows: _prepared_rows(device, region, recipes, rows), region.values[0].rows
            )
        else:
            self.prepared = _prepared(device, region, recipes)
        self._inputs = [
            entering(b.dims, region.value(v).rows, region.value(v).cols)
            for b, v in zip(plan.inputs, region.inputs)
        ]
        self._outputs = [(b.index, leaving(b.node, b.dims)) for b in plan.outputs]
        indices = [b.index for b in plan.outputs]
        # A value exported twice must not become two names for one memory.
        self._again = [index in indices[:i] for i, index in enumerate(indices)]

    def forward(self, *args: Tensor) -> list[Tensor]:
        if without_data(args):
            return self._run_eager(args)
        try:
            results = self._on_device(args)
        except DeviceError as error:
            return self.recovery.recover(self.region.name, error, lambda: self._run_eager(args))
        return [
            leave(results[i].clone() if again else results[i])
            for (i, leave), again in zip(self._outputs, self._again)
        ]

    def _run_eager(self, args: Sequence[Tensor]) -> list[Tensor]:
        return without_grad(self.eager, [args[i] for i in self._eager_args])

    def _on_device(self, args: Sequence[Tensor]) -> list[Tensor]:
        inputs = [enter(t) for enter, t in zip(self._inputs, args)]
        return self.prepared.run(inputs, args[self._sources])


class Prepared:
    """An executable and the weights packed for it, shared by graphs with equal regions (other batches)."""

    def __init__(self, executable: Executable, recipes: tuple[Recipe, ...], name: str) -> None:
        self.executable = executable
        self._name = name
        self.weights = WeightStore(lambda sources: _pack(executable, recipes, sources))

    def run(self, inputs: Sequence[Tensor], sources: Sequence[Tensor]) -> list[Tensor]:
        def once(packed: Any) -> list[Tensor]:
            with device_range(self._name):
                return self.executable.run(inputs, packed)

        return self.weights.use(sources, once)


_PREPARED: weakref.WeakValueDictionary[tuple, Prepared] = weakref.WeakValueDictionary()


def _prepared(device: Device, region: Region, recipes: tuple[Recipe, ...]) -> Prepared:
    key = (device, region, recipes)
    found = _PREPARED.get(key)
    if found is None:
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


class Recipe(NamedTuple):
    """How a region's parameter comes from the graph's inputs: `tree` is an input's number or an op's call."""

    param: str
    shape: tuple[int, ...]
    tree: Any


class _Call(NamedTuple):
    target: Any
    args: tuple
    kwargs: tuple


class _Input(NamedTuple):
    number: int


def _recipes(weights: Mapping[str, Weight], sources: list[fx.Node]) -> tuple[Recipe, ...]:
    def tree(arg: Any) -> Any:
        if isinstance(arg, (list, tuple)):
            return tuple(map(tree, arg))
        if not isinstance(arg, fx.Node):
            return arg
        if arg in sources:
            return _Input(sources.index(arg))
        return _Call(arg.target, tree(arg.args), tuple((k, tree(v)) for k, v in arg.kwargs.items()))

    return tuple(Recipe(name, w.shape, tree(w.node)) for name, w in weights.items())


def _pack(executable: Executable, recipes: tuple[Recipe, ...], sources: Sequence[Tensor]) -> Any:
    def value(tree: Any) -> Any:
        if isinstance(tree, _Input):
            return sources[tree.number]
        if isinstance(tree, _Call):
            return tree.target(*map(value, tree.args), **{k: value(v) for k, v in tree.kwargs})
        return [value(t) for t in tree] if isinstance(tree, tuple) else tree

    # Normal tensors even if the first call comes under inference_mode: a later call may not.
    with torch.inference_mode(False), torch.no_grad():
        params = {r.param: value(r.tree) for r in recipes}
        return executable.pack({r.param: _shaped(params[r.param], r.shape) for r in recipes})


def _shaped(param: Tensor, shape: tuple[int, ...]) -> Tensor:
    if param.shape == shape:
        return param
    return (
        param.reshape(shape)
        if param.numel() == math.prod(shape)
        else param.reshape(param.shape[-len(shape) :]).expand(shape)
    )
