"""What of a graph is needed at all, and where: on the device, on the CPU, or at a region's border."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx

from torch_xdna.lowering.ops import Attention
from torch_xdna.matching import MatchState, Matrix
from torch_xdna.matching.views import VIEWS


class Demand:
    """`device`: tensors that it computes, `exported`: those that leave it, `eager`: nodes that run eager.
    `on_cpu`: matched tensors that run eager nevertheless."""

    def __init__(self, graph: fx.Graph, state: MatchState, on_cpu: frozenset[fx.Node] = frozenset()) -> None:
        self.state, self._on_cpu = state, on_cpu
        self.device: set[fx.Node] = set()
        self.eager: set[fx.Node] = set()
        self.exported: set[fx.Node] = set()
        ours = {n for node, match in state.matches.items() for n in (node, *match.absorbs)}
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
            for matrix in reads([node], self.state):
                (todo if self.state.computes(matrix) else tensors).append(matrix.node)
        return tensors

    def origin(self, node: fx.Node) -> fx.Node | None:
        """The matched tensor that a region can export as `node`: itself, or what it copies or casts."""
        found = self._origin(node)
        return None if found in self._on_cpu else found

    def _origin(self, node: fx.Node) -> fx.Node | None:
        if node in self.state.matches:
            return node
        layout = self.state.layouts.get(node)
        if node.target in VIEWS or layout is None or layout.matrix is None or layout.scale != 1:
            return None  # views stay views, so that aliases stay aliases
        return layout.matrix.node if layout.matrix.node in self.state.matches else None

    def only_asked_for(self) -> frozenset[fx.Node]:
        """Tensors within attention that the device would compute a second time, from scores of the CPU, only to
        give them away: the weights, which transformers' word timestamps ask of every layer and never use."""
        read = {m.node for m in reads(self.device, self.state) if self.state.computes(m)}
        return frozenset(
            {o for n in self.exported if (o := self.origin(n)) is not None} & self._within() - read
        )

    def aside(self, graph: fx.Graph) -> frozenset[fx.Node]:
        """The eager nodes of which nothing comes but tensors within attention."""
        taken = {m.node for m in reads(self.device, self.state)}
        out = self._within() & self.eager
        for node in reversed(graph.nodes):
            users = [u for u in node.users if u in self.eager or u.op == "output"]
            if node in self.eager and node not in taken and users and all(u in out for u in users):
                out.add(node)
        return frozenset(out)

    def _within(self) -> set[fx.Node]:
        attention = [m for n in self.device if isinstance((m := self.state.matches[n]).op, Attention)]
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


def reads(nodes: Iterable[fx.Node], state: MatchState) -> list[Matrix]:
    return [state.matrices[i] for node in nodes for i in state.matches[node].op.inputs]
