"""Decide where each op of an ATen graph runs: match, partition, fuse, and again without what the overlay lacks."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from torch import fx

from torch_xdna.capture import Origin
from torch_xdna.lowering.ops import Add, Attention, Gelu, LayerNorm, Softmax
from torch_xdna.lowering.overlay.variants import FULL, Variant
from torch_xdna.matching import MatchState, Refusal, match_graph
from torch_xdna.partitioning.fusion import fuse
from torch_xdna.partitioning.partition import Partition, partition
from torch_xdna.partitioning.regions import GraphRegion


class Decision(NamedTuple):
    """What matching found in a graph, and the graph cut into regions for the device and eager ops."""

    state: MatchState
    parts: Partition


def decide(
    aten: fx.GraphModule,
    origin: Origin,
    banned: Mapping[fx.Node, Refusal] | None = None,
    variant: Variant = FULL,
) -> Decision:
    """`banned`: ops that the device refused after all. `variant`: what the device's overlay can do."""
    names, static = origin.of_placeholders(aten.graph)
    refused = dict(banned or {})
    while True:
        # An op with several results is matched as the one that is used: what is banned is the op.
        refused |= {n.args[0]: r for n, r in refused.items() if n.target is operator.getitem}  # type: ignore[misc]
        state = match_graph(aten.graph, MatchState(names, static), refused)
        parts = _fused(partition(aten.graph, state, origin.name))
        lacking = _lacking(parts, variant)
        if not lacking:
            return Decision(state, parts)
        refused |= lacking


def _fused(parts: Partition) -> Partition:
    steps = [replace(s, region=fuse(s.region)) if isinstance(s, GraphRegion) else s for s in parts.steps]
    return replace(parts, steps=steps)


def _lacking(parts: Partition, variant: Variant) -> dict[fx.Node, Refusal]:
    """The ops that remain after fusion and that the overlay can't do: a GELU within a product is the product's."""
    found = {}
    for part in parts.regions:
        for op in part.region.ops:
            kind = _KINDS.get(type(op))
            if kind in variant.without:
                node = part.nodes[op.out - len(part.region.inputs)]
                found[node] = Refusal(variant.refusal(str(kind)))
    return found


_KINDS = {Attention: "attention", Softmax: "softmax", Gelu: "gelu", Add: "add", LayerNorm: "layer_norm"}
