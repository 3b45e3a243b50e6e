"""A region of the graph with its border: the tensors that enter and leave it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from lowering.ops import Param, Region, Value
from torch_xdna.matching import Match, MatchState
from torch_xdna.matching.layout import Dims, Size
from torch_xdna.matching.state import Weight
from torch_xdna.partitioning.demand import Demand, reads


@dataclass(frozen=True)
class Border:
    """A tensor of the graph at a region's border, and how it arranges the matrix `index` of that side."""

    node: fx.Node
    dims: Dims
    index: int


@dataclass(frozen=True)
class GraphRegion:
    """A region with its border. `nodes`: the tensors of the graph that the device computes in it."""

    region: Region
    batch: Size
    inputs: tuple[Border, ...]
    outputs: tuple[Border, ...]
    weights: dict[str, Weight]
    nodes: tuple[fx.Node, ...]


def make_graph_region(
    nodes: list[fx.Node], batch: Size, state: MatchState, demand: Demand, name: str
) -> GraphRegion:
    matches: list[Match] = [state.matches[n] for n in nodes]
    inside = {m.matrix.id for m in matches}
    entering = list(dict.fromkeys(m.id for m in reads(nodes, state) if m.id not in inside))
    ids = {old: new for new, old in enumerate([*entering, *(m.matrix.id for m in matches)])}
    leaving = [n for n in in_order(demand.exported) if demand.origin(n) in set(nodes)]
    exported = [state.layouts[n] for n in leaving]
    results = list(dict.fromkeys(layout.matrix.id for layout in exported if layout.matrix))
    names = list(dict.fromkeys(p for m in matches for p in m.op.params))

    def value(old: int) -> Value:
        m = state.matrices[old]
        return Value(ids[old], m.rows, m.cols, state.names.get(m.node, ""))

    region = Region(
        values=tuple(value(i) for i in ids),
        inputs=tuple(ids[i] for i in entering),
        outputs=tuple(ids[i] for i in results),
        params=tuple(Param(p, state.params[p].shape) for p in names),
        ops=tuple(m.op.renumbered(ids) for m in matches),
        name=name,
    )
    return GraphRegion(
        region=region,
        batch=batch,
        inputs=tuple(
            Border(state.matrices[i].node, state.matrices[i].dims, k) for k, i in enumerate(entering)
        ),
        outputs=tuple(
            Border(n, layout.dims, results.index(layout.matrix.id))
            for n, layout in zip(leaving, exported)
            if layout.matrix
        ),
        weights={p: state.params[p] for p in names},
        nodes=tuple(nodes),
    )


def in_order(nodes: set[fx.Node]) -> list[fx.Node]:
    return sorted(nodes)  # fx nodes compare by their place in the graph
