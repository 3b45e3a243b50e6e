"""The rows of a report: for each op of a graph where it runs, and why."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import torch
from torch import fx

from torch_xdna.capture import NEEDS_GRADIENTS
from torch_xdna.errors import FallbackError
from torch_xdna.execution import any_length
from torch_xdna.execution.lengths import REASON, by_row
from torch_xdna.flops import flops
from torch_xdna.matching import MatchState, Refusal, is_compute
from torch_xdna.matching.layout import size_of
from torch_xdna.matching.rows import module_path
from torch_xdna.partitioning.partition import Partition
from torch_xdna.partitioning.regions import GraphRegion
from torch_xdna.report import DEVICE, EAGER, Row

# No reason for a warning: what the device gives does not wait for it.
ASIDE = (
    "it only gives attention weights, which the device's attention has within: the caller asked for them "
    "(output_attentions=True)"
)


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


def tell(rows: tuple[Row, ...], fallback: str) -> None:
    """Warn of eager ops, once for each distinct reason; with fallback="error" raise FallbackError instead."""
    if fallback == "error":
        check_fallback(rows)
    for row in rows:
        if row.where == EAGER and row.reason != ASIDE and row.reason not in _WARNED:
            _WARNED.add(row.reason)
            warnings.warn(
                f"xdna: {row.op} of {row.name}, shape {list(row.shape)}, runs eager on the CPU, "
                f"because {row.reason}",
                stacklevel=2,
            )


def forget() -> None:
    """Warn again."""
    _WARNED.clear()


_WARNED: set[str] = set()


def report_rows(graph: fx.Graph, state: MatchState, parts: Partition) -> tuple[Row, ...]:
    region = {node: i for i, part in enumerate(parts.regions) for node in part.nodes}
    lengths = {i: _length(part) for i, part in enumerate(parts.regions)}
    exported = {b.node for part in parts.regions for b in part.outputs}
    eager = set(parts.eager)
    out = []
    for node in graph.nodes:
        if not is_compute(node) and node not in region:
            continue
        value = _first_tensor(node.meta["val"])
        op = str(node.target).removesuffix(".default")
        absorbed_by = parts.absorbed.get(node)
        if node in eager:
            refusal = state.refusals.get(node) or Refusal("nothing on the device needs it there")
            reason = ASIDE if node in parts.aside else refusal.reason
            out.append(_row(op, node, value, EAGER, None, reason))
        elif node in region:
            if node.target is not operator.getitem:
                out.append(_row(op, node, value, DEVICE, region[node], lengths[region[node]]))
        elif absorbed_by is not None:
            kind = type(state.matches[absorbed_by].op).__name__.lower()
            whole = absorbed_by.target is operator.getitem and node in absorbed_by.all_input_nodes
            out.append(_row(op, node, value, DEVICE, region[absorbed_by], "" if whole else f"part of {kind}"))
        elif node in exported:
            origin = state.layouts[node].matrix
            assert origin is not None
            out.append(
                _row(op, node, value, DEVICE, region[origin.node], "done on the way out of the region")
            )
    return tuple(out)


def _length(part: GraphRegion) -> str:
    """What becomes of a symbolic number of rows."""
    if part.lengths:
        return any_length.REASON
    return REASON if by_row(part.region, part.batch) else ""


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
        return Row(op, module_path(node), (), "no tensor", where, region, reason, flops(node))
    sizes = tuple(s if isinstance(s, int) else str(s) for s in map(size_of, value.shape))
    dtype = str(value.dtype).removeprefix("torch.")
    return Row(op, module_path(node), sizes, dtype, where, region, reason, flops(node))
