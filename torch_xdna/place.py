"""Decide where each op of an ATen graph runs, and write down why."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from lowering.ops import Add, Attention, Gelu, LayerNorm, Softmax
from lowering.overlay.variants import FULL, Variant
from torch_xdna.errors import FallbackError
from torch_xdna.lengths import REASON, by_row
from torch_xdna.matching import Refusal, Scope, is_compute, match_graph
from torch_xdna.matching.layout import size_of
from torch_xdna.matching.rows import module_path
from torch_xdna.partition import Partition, partition
from torch_xdna.report import DEVICE, EAGER, Row
from torch_xdna.trace import NEEDS_GRADIENTS, Origin

# No reason for a warning: what the device gives does not wait for it.
ASIDE = (
    "it only gives attention weights, which the device's attention has within: the caller asked for them "
    "(output_attentions=True)"
)


def place(
    aten: fx.GraphModule,
    origin: Origin,
    banned: Mapping[fx.Node, Refusal] | None = None,
    variant: Variant = FULL,
) -> tuple[Partition, tuple[Row, ...]]:
    """The partition of a graph and a row for each op. `banned`: ops that the device refused after all. `variant`: what
    the device's overlay can do."""
    names, static = origin.of_placeholders(aten.graph)
    refused = dict(banned or {})
    while True:
        # An op with several results is matched as the one that is used: what is banned is the op.
        refused |= {n.args[0]: r for n, r in refused.items() if n.target is operator.getitem}  # type: ignore[misc]
        scope = match_graph(aten.graph, Scope(names, static), refused)
        parts = partition(aten.graph, scope, origin.name)
        lacking = _lacking(parts, variant)
        if not lacking:
            return parts, _rows(aten.graph, scope, parts)
        refused |= lacking


def _lacking(parts: Partition, variant: Variant) -> dict[fx.Node, Refusal]:
    """The ops that remain after fusion and that the overlay can't do: a GELU within a product is the product's."""
    found = {}
    for plan in parts.plans:
        for op in plan.region.ops:
            kind = _KINDS.get(type(op))
            if kind in variant.without:
                node = plan.nodes[op.out - len(plan.region.inputs)]
                found[node] = Refusal(variant.refusal(str(kind)))
    return found


_KINDS = {Attention: "attention", Softmax: "softmax", Gelu: "gelu", Add: "add", LayerNorm: "layer_norm"}


def training_rows(gm: fx.GraphModule) -> tuple[Row, ...]:
    """The rows of Dynamo's graph if it runs eager as a whole."""
    out = []
    for node in gm.graph.nodes:
        value = node.meta.get("example_value")
        if node.op in ("call_function", "call_method", "call_module") and isinstance(value, torch.Tensor):
            name = getattr(node.target, "__name__", str(node.target))
            out.append(_row(name, node, value, EAGER, None, NEEDS_GRADIENTS))
    return tuple(out)


def check_fallback(rows: tuple[Row, ...]) -> None:
    """With fallback="error": raises FallbackError naming the first eager op that anything waits for."""
    eager = [row for row in rows if row.where == EAGER and row.reason != ASIDE]
    if eager:
        row, more = eager[0], len(eager) - 1
        others = f" (and {more} more op{'s' if more > 1 else ''})" if more else ""
        raise FallbackError(
            f"{row.op} of {row.name}, shape {list(row.shape)}{others}, would run eager on the CPU, because "
            f"{row.reason}; leave it out of what is compiled, or allow it: options={{'fallback': 'eager'}}"
        )


def _rows(graph: fx.Graph, scope: Scope, parts: Partition) -> tuple[Row, ...]:
    region = {node: i for i, plan in enumerate(parts.plans) for node in plan.nodes}
    lengths = {i: REASON if by_row(plan.region, plan.batch) else "" for i, plan in enumerate(parts.plans)}
    exported = {b.node for plan in parts.plans for b in plan.outputs}
    eager = set(parts.eager)
    out = []
    for node in graph.nodes:
        if not is_compute(node) and node not in region:
            continue
        value = _first_tensor(node.meta["val"])
        op = str(node.target).removesuffix(".default")
        absorbed_by = parts.absorbed.get(node)
        if node in eager:
            refusal = scope.refusals.get(node) or Refusal("nothing on the device needs it there")
            reason = ASIDE if node in parts.aside else refusal.reason
            out.append(_row(op, node, value, EAGER, None, reason))
        elif node in region:
            if node.target is not operator.getitem:
                out.append(_row(op, node, value, DEVICE, region[node], lengths[region[node]]))
        elif absorbed_by is not None:
            kind = type(scope.matches[absorbed_by].op).__name__.lower()
            whole = absorbed_by.target is operator.getitem and node in absorbed_by.all_input_nodes
            out.append(_row(op, node, value, DEVICE, region[absorbed_by], "" if whole else f"part of {kind}"))
        elif node in exported:
            origin = scope.layouts[node].matrix
            assert origin is not None
            out.append(
                _row(op, node, value, DEVICE, region[origin.node], "done on the way out of the region")
            )
    return tuple(out)


def _first_tensor(value: Any) -> torch.Tensor | None:
    """The tensor, or the first of an op's results that is one: a custom op may return numbers or lists first."""
    if isinstance(value, torch.Tensor):
        return value
    found = (_first_tensor(v) for v in value) if isinstance(value, (tuple, list)) else ()
    return next((v for v in found if v is not None), None)


def _row(
    op: str, node: fx.Node, value: torch.Tensor | None, where: str, region: int | None, reason: str
) -> Row:
    if value is None:
        return Row(op, module_path(node), (), "no tensor", where, region, reason)
    sizes = tuple(s if isinstance(s, int) else str(s) for s in map(size_of, value.shape))
    return Row(op, module_path(node), sizes, str(value.dtype).removeprefix("torch."), where, region, reason)
