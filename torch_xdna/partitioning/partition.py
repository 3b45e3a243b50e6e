"""Cut a matched graph into regions for the device and ops that stay eager.

Everything is driven by demand: what the graph returns, what has side effects, and what those need. Whatever a
match absorbed (a softmax inside attention, a factor on q) is in nobody's demand and vanishes.

A region is all ops of one stage and one batch size; an op's stage is how often a path from the inputs to it
went from the device to an eager op and back, or to a tensor that the device takes in again as another matrix
(its rows as columns, say). So no path leaves a region and returns to it, and there are as few regions as these
allow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx

from torch_xdna.matching import MatchState
from torch_xdna.matching.layout import Size
from torch_xdna.partitioning.demand import Demand, has_effect, reads
from torch_xdna.partitioning.regions import GraphRegion, make_graph_region


@dataclass
class Partition:
    """`steps`: eager nodes and regions, in an order to run. `absorbed`: node -> who made it needless.
    `aside`: eager nodes that only give what attention on the device has within, as its weights."""

    steps: list[fx.Node | GraphRegion] = field(default_factory=list)
    absorbed: dict[fx.Node, fx.Node] = field(default_factory=dict)
    aside: frozenset[fx.Node] = frozenset()

    @property
    def regions(self) -> list[GraphRegion]:
        return [s for s in self.steps if isinstance(s, GraphRegion)]

    @property
    def eager(self) -> list[fx.Node]:
        return [s for s in self.steps if isinstance(s, fx.Node)]


def partition(graph: fx.Graph, state: MatchState, name: str = "region") -> Partition:
    demand = Demand(graph, state)
    within = demand.only_asked_for()
    if within:
        demand = Demand(graph, state, within)
    stages = _stages(graph, state, demand)
    groups: dict[tuple[int, Size], list[fx.Node]] = {}
    for node in graph.nodes:
        if node in demand.device:
            groups.setdefault((stages[node], state.matches[node].matrix.batch), []).append(node)
    for nodes in groups.values():  # what crosses from one region to another leaves the first as a tensor
        demand.exported.update(
            m.node for m in reads(nodes, state) if state.computes(m) and m.node not in nodes
        )
    out = Partition()
    for stage in range(max(stages.values(), default=0) + 1):
        out.steps += [n for n in graph.nodes if n in demand.eager and stages[n] == stage]
        for (of, batch), nodes in groups.items():
            if of == stage:
                label = name if len(groups) == 1 else f"{name}.{len(out.regions)}"
                out.steps.append(make_graph_region(nodes, batch, state, demand, label))
    for node in demand.device:
        for inner in state.matches[node].absorbs:
            if inner not in demand.device and inner not in demand.eager:
                out.absorbed[inner] = node
    out.aside = demand.aside(graph)
    return out


def _stages(graph: fx.Graph, state: MatchState, demand: Demand) -> dict[fx.Node, int]:
    """Device op: its stage. Eager node: the stage before whose regions it can run."""
    stages: dict[fx.Node, int] = {}
    last_effect = 0

    def ready(tensor: fx.Node) -> int:
        if tensor in demand.exported:
            origin = demand.origin(tensor)
            assert origin is not None
            return stages[origin] + 1
        return stages.get(tensor, 0)

    for node in graph.nodes:
        if node in demand.device:
            stages[node] = max(
                (stages[m.node] if state.computes(m) else ready(m.node) for m in reads([node], state)),
                default=0,
            )
        if node in demand.eager:
            stages[node] = max((ready(n) for n in node.all_input_nodes), default=0)
            if has_effect(node):
                stages[node] = last_effect = max(stages[node], last_effect)
    return stages
