"""A region of the graph with its border: the tensors that enter and leave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from torch_xdna.lowering.ops import Param, Region, Value
from torch_xdna.matching import Match, MatchState
from torch_xdna.matching.layout import Dims, Size, at, traced_sizes
from torch_xdna.matching.state import Weight, Window
from torch_xdna.partitioning.demand import Demand, reads


@dataclass(frozen=True)
class Border:
    """A tensor of the graph at a region's border, and how it (or its view as windows) arranges the matrix `index` of
    that side."""

    node: fx.Node
    dims: Dims
    index: int
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True)
class GraphRegion:
    """A region with its border. `nodes`: the tensors of the graph that the device computes in it. `lengths`: numbers
    of rows that are symbolic, by the value's id; the region has what they were when the graph was traced."""

    region: Region
    batch: Size
    inputs: tuple[Border, ...]
    outputs: tuple[Border, ...]
    weights: dict[str, Weight]
    nodes: tuple[fx.Node, ...]
    lengths: Mapping[int, Size]


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

    traced = traced_sizes(nodes[0].graph)

    def value(old: int) -> Value:
        m = state.matrices[old]
        return Value(ids[old], at(m.rows, traced), m.cols, state.names.get(m.node, ""))

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
            Border(m.node, m.dims, k, m.windows) for k, m in enumerate(state.matrices[i] for i in entering)
        ),
        outputs=tuple(
            Border(n, layout.dims, results.index(layout.matrix.id))
            for n, layout in zip(leaving, exported)
            if layout.matrix
        ),
        weights={p: state.params[p] for p in names},
        nodes=tuple(nodes),
        lengths={ids[i]: m.rows for i in ids if not isinstance((m := state.matrices[i]).rows, int)},
    )


def in_order(nodes: set[fx.Node]) -> list[fx.Node]:
    return sorted(nodes)  # fx nodes compare by their place in the graph
