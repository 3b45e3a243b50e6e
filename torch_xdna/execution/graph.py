"""What runs when a compiled graph is called: eager nodes as they were, each region as one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from torch_xdna.devices import Device
from torch_xdna.execution.recovery import Recovery
from torch_xdna.execution.region_call import region_call
from torch_xdna.partitioning.partition import Partition


@dataclass(frozen=True)
class CompiledGraph:
    """`forward` runs it. `executables`: the device's, one for each region; `failures`: as in GraphReport."""

    forward: Callable[..., Any]
    executables: tuple[Any, ...]
    failures: Counter[str]


def assemble(
    gm: fx.GraphModule, partition: Partition, device: Device, fallback: str = "eager"
) -> CompiledGraph:
    """The graph with a call in place of each region; raises RegionRefused if the device can't take one.

    `fallback`: as in `torch_xdna.settings.Settings`, for a device that fails in the middle of its work.
    """
    recovery = Recovery(fallback)
    graph = fx.Graph()
    new: dict[fx.Node, fx.Node] = {}
    calls = {
        f"xdna_region_{i}": region_call(gm, part, device, recovery)
        for i, part in enumerate(partition.regions)
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
    executables = tuple(call.prepared.executable for call in calls.values())
    return CompiledGraph(fx.GraphModule(attributes, graph).forward, executables, recovery.failures)


def _item(results: list[Tensor], i: int) -> Tensor:
    return results[i]
