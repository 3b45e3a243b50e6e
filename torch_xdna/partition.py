"""Cut a matched graph into regions for the device and ops that stay eager.

Everything is driven by demand: what the graph returns, what has side effects, and what those need. Whatever a
match absorbed (a softmax inside attention, a factor on q) is in nobody's demand and vanishes.

A region is all ops of one stage and one batch size; an op's stage is how often a path from the inputs to it
went from the device to an eager op and back, or to a tensor that the device takes in again as another matrix
(its rows as columns, say). So no path leaves a region and returns to it, and there are as few regions as these
allow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import fx

from lowering.ops import Attention, Op, Param, Region, Value
from torch_xdna.fusion import fuse
from torch_xdna.matching import Match, Matrix, Scope
from torch_xdna.matching.layout import Dims, Size
from torch_xdna.matching.scope import Weight
from torch_xdna.matching.views import VIEWS


@dataclass(frozen=True)
class Border:
    """A tensor of the graph at a region's border, and how it arranges the matrix `index` of that side."""

    node: fx.Node
    dims: Dims
    index: int


@dataclass(frozen=True)
class Plan:
    """A region with its border. `nodes`: the tensors of the graph that the device computes in it."""

    region: Region
    batch: Size
    inputs: tuple[Border, ...]
    outputs: tuple[Border, ...]
    weights: dict[str, Weight]
    nodes: tuple[fx.Node, ...]


@dataclass
class Partition:
    """`steps`: eager nodes and regions, in an order to run. `absorbed`: node -> who made it needless.
    `aside`: eager nodes that only give what attention on the device has within, as its weights."""

    steps: list[fx.Node | Plan] = field(default_factory=list)
    absorbed: dict[fx.Node, fx.Node] = field(default_factory=dict)
    aside: frozenset[fx.Node] = frozenset()

    @property
    def plans(self) -> list[Plan]:
        return [s for s in self.steps if isinstance(s, Plan)]

    @property
    def eager(self) -> list[fx.Node]:
        return [s for s in self.steps if isinstance(s, fx.Node)]


def partition(graph: fx.Graph, scope: Scope, name: str = "region") -> Partition:
    demand = _Demand(graph, scope)
    within = demand.only_asked_for()
    if within:
        demand = _Demand(graph, scope, within)
    stages = _stages(graph, scope, demand)
    groups: dict[tuple[int, Size], list[fx.Node]] = {}
    for node in graph.nodes:
        if node in demand.device:
            groups.setdefault((stages[node], scope.matches[node].matrix.batch), []).append(node)
    for nodes in groups.values():  # what crosses from one region to another leaves the first as a tensor
        demand.exported.update(
            m.node for m in _reads(nodes, scope) if scope.computes(m) and m.node not in nodes
        )
    out = Partition()
    for stage in range(max(stages.values(), default=0) + 1):
        out.steps += [n for n in graph.nodes if n in demand.eager and stages[n] == stage]
        for (of, batch), nodes in groups.items():
            if of == stage:
                label = name if len(groups) == 1 else f"{name}.{len(out.plans)}"
                out.steps.append(_plan(nodes, batch, scope, demand, label))
    for node in demand.device:
        for inner in scope.matches[node].absorbs:
            if inner not in demand.device and inner not in demand.eager:
                out.absorbed[inner] = node
    out.aside = demand.aside(graph)
    return out


class _Demand:
    """`device`: tensors that it computes, `exported`: those that leave it, `eager`: nodes that run eager.
    `on_cpu`: matched tensors that run eager nevertheless."""

    def __init__(self, graph: fx.Graph, scope: Scope, on_cpu: frozenset[fx.Node] = frozenset()) -> None:
        self.scope, self._on_cpu = scope, on_cpu
        self.device: set[fx.Node] = set()
        self.eager: set[fx.Node] = set()
        self.exported: set[fx.Node] = set()
        ours = {n for node, match in scope.matches.items() for n in (node, *match.absorbs)}
        todo: list[fx.Node] = []
        for node in graph.nodes:
            if node.op == "output":
                todo += node.all_input_nodes
            elif node not in ours and node.op not in ("placeholder", "get_attr") and has_effect(node):
                todo.append(node)
        while todo:
            todo += self._need(todo.pop())

    def _need(self, node: fx.Node) -> Iterable[fx.Node]:
        """Take note that `node` is needed as a tensor; returns what that needs in turn."""
        if node.op in ("placeholder", "get_attr") or node in self.eager or node in self.exported:
            return []
        origin = self.origin(node)
        if origin is None:
            self.eager.add(node)
            return node.all_input_nodes
        self.exported.add(node)
        return self._compute(origin)

    def _compute(self, origin: fx.Node) -> Iterable[fx.Node]:
        tensors: list[fx.Node] = []
        todo = [origin]
        while todo:
            node = todo.pop()
            if node in self.device:
                continue
            self.device.add(node)
            for matrix in _reads([node], self.scope):
                (todo if self.scope.computes(matrix) else tensors).append(matrix.node)
        return tensors

    def origin(self, node: fx.Node) -> fx.Node | None:
        """The matched tensor that a region can export as `node`: itself, or what it copies or casts."""
        found = self._origin(node)
        return None if found in self._on_cpu else found

    def _origin(self, node: fx.Node) -> fx.Node | None:
        if node in self.scope.matches:
            return node
        layout = self.scope.layouts.get(node)
        if node.target in VIEWS or layout is None or layout.matrix is None or layout.scale != 1:
            return None  # views stay views, so that aliases stay aliases
        return layout.matrix.node if layout.matrix.node in self.scope.matches else None

    def only_asked_for(self) -> frozenset[fx.Node]:
        """Tensors within attention that the device would compute a second time, from scores of the CPU, only to
        give them away: the weights, which transformers' word timestamps ask of every layer and never use."""
        read = {m.node for m in _reads(self.device, self.scope) if self.scope.computes(m)}
        return frozenset(
            {o for n in self.exported if (o := self.origin(n)) is not None} & self._within() - read
        )

    def aside(self, graph: fx.Graph) -> frozenset[fx.Node]:
        """The eager nodes of which nothing comes but tensors within attention."""
        taken = {m.node for m in _reads(self.device, self.scope)}
        out = self._within() & self.eager
        for node in reversed(graph.nodes):
            users = [u for u in node.users if u in self.eager or u.op == "output"]
            if node in self.eager and node not in taken and users and all(u in out for u in users):
                out.add(node)
        return frozenset(out)

    def _within(self) -> set[fx.Node]:
        attention = [m for n in self.device if isinstance((m := self.scope.matches[n]).op, Attention)]
        return {inner for match in attention for inner in match.absorbs}


def has_effect(node: fx.Node) -> bool:
    """Whether a node does more than give a result: it must run, and in its place among its like."""
    if node.is_impure():
        return True
    op = node.target
    if isinstance(op, torch._ops.HigherOrderOperator):
        return any(has_effect(inner) for graph in _called(node) for inner in graph.nodes)
    if not isinstance(op, torch._ops.OpOverload):
        return False
    return op._schema.is_mutable or torch.Tag.nondeterministic_seeded in op.tags


def _called(node: fx.Node) -> Iterable[fx.Graph]:
    """The graphs that a higher-order op calls, as the branches of cond."""
    owner = node.graph.owning_module
    for source in node.all_input_nodes:
        called = getattr(owner, str(source.target), None) if source.op == "get_attr" else None
        if isinstance(called, fx.GraphModule):
            yield called.graph


def _stages(graph: fx.Graph, scope: Scope, demand: _Demand) -> dict[fx.Node, int]:
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
                (stages[m.node] if scope.computes(m) else ready(m.node) for m in _reads([node], scope)),
                default=0,
            )
        if node in demand.eager:
            stages[node] = max((ready(n) for n in node.all_input_nodes), default=0)
            if has_effect(node):
                stages[node] = last_effect = max(stages[node], last_effect)
    return stages


def _reads(nodes: Iterable[fx.Node], scope: Scope) -> list[Matrix]:
    return [scope.matrices[i] for node in nodes for i in scope.matches[node].op.inputs]


def _plan(nodes: list[fx.Node], batch: Size, scope: Scope, demand: _Demand, name: str) -> Plan:
    matches: list[Match] = [scope.matches[n] for n in nodes]
    inside = {m.matrix.id for m in matches}
    entering = list(dict.fromkeys(m.id for m in _reads(nodes, scope) if m.id not in inside))
    ids = {old: new for new, old in enumerate([*entering, *(m.matrix.id for m in matches)])}
    leaving = [n for n in _in_order(demand.exported) if demand.origin(n) in set(nodes)]
    exported = [scope.layouts[n] for n in leaving]
    results = list(dict.fromkeys(layout.matrix.id for layout in exported if layout.matrix))
    names = list(dict.fromkeys(p for m in matches for p in m.op.params))

    def value(old: int) -> Value:
        m = scope.matrices[old]
        return Value(ids[old], m.rows, m.cols, scope.names.get(m.node, ""))

    region = Region(
        values=tuple(value(i) for i in ids),
        inputs=tuple(ids[i] for i in entering),
        outputs=tuple(ids[i] for i in results),
        params=tuple(Param(p, scope.params[p].shape) for p in names),
        ops=tuple(_renumbered(m.op, ids) for m in matches),
        name=name,
    )
    return Plan(
        region=fuse(region),
        batch=batch,
        inputs=tuple(
            Border(scope.matrices[i].node, scope.matrices[i].dims, k) for k, i in enumerate(entering)
        ),
        outputs=tuple(
            Border(n, layout.dims, results.index(layout.matrix.id))
            for n, layout in zip(leaving, exported)
            if layout.matrix
        ),
        weights={p: scope.params[p] for p in names},
        nodes=tuple(nodes),
    )


def _renumbered(op: Op, ids: dict[int, int]) -> Op:
    changes: dict[str, Any] = {}
    for f in fields(op):
        if f.name in ("out", "x", "y", "q", "k", "v", "residual") and isinstance(getattr(op, f.name), int):
            changes[f.name] = ids[getattr(op, f.name)]
    return replace(op, **changes)


def _in_order(nodes: set[fx.Node]) -> list[fx.Node]:
    return sorted(nodes)  # fx nodes compare by their place in the graph
