"""Which ops of an ATen graph the device takes: a table of predicates that answer match or refusal."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import torch
from torch import fx

from torch_xdna.matching import attention, convolution, linear, rows
from torch_xdna.matching.refusal import Refusal
from torch_xdna.matching.state import Layout, Match, MatchState, Matrix
from torch_xdna.matching.views import REARRANGING, VIEWS, follow, scalar_factor

__all__ = ["Layout", "Match", "MatchState", "Matrix", "Refusal", "is_compute", "match_graph"]

aten = torch.ops.aten
Matcher = Callable[[MatchState, fx.Node], "Match | Refusal | None"]


def _product(plain: Matcher) -> Matcher:
    """Attention's second product first: its values may look like a weight."""
    return lambda state, node: attention.written_out(state, node) or plain(state, node)


MATCHERS: dict[object, Matcher] = {
    aten.linear.default: linear.linear,
    aten.addmm.default: linear.addmm,
    aten.mm.default: _product(linear.mm),
    aten.bmm.default: _product(linear.bmm),
    aten.convolution.default: convolution.convolution,
    aten.native_layer_norm.default: rows.layer_norm,
    aten._softmax.default: rows.softmax,
    aten._safe_softmax.default: rows.softmax,
    aten.gelu.default: rows.gelu,
    aten.add.Tensor: rows.add,
    aten.scaled_dot_product_attention.default: attention.fused,
    aten._scaled_dot_product_flash_attention_for_cpu.default: attention.fused,
}
# The safe softmax, decomposed, ends in one of these; anything else that does is refused like an unknown op.
_SOFTMAX_TAILS = (aten.where.self, aten.div.Tensor)


def match_graph(graph: fx.Graph, state: MatchState, banned: Mapping[fx.Node, Refusal]) -> MatchState:
    """Fill the state with a layout for each view, and a match or a refusal for each op that computes.

    `banned`: nodes that must not run on the device, with the reason (a device refused their region).
    """
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        layout = follow(state, node)
        if layout is not None:
            state.layouts[node] = layout
        if not is_compute(node):
            continue
        result = banned.get(node) or _match(state, node)
        if isinstance(result, Refusal):
            state.refusals[node] = result
    return state


def is_compute(node: fx.Node) -> bool:
    """Whether a node computes something: not a view, a size, or the picking of one of several results."""
    if node.op != "call_function" or node.target is operator.getitem or node.target in VIEWS:
        return False
    value = node.meta.get("val")
    return isinstance(value, (torch.Tensor, tuple, list))


def _match(state: MatchState, node: fx.Node) -> Match | Refusal:
    matcher = MATCHERS.get(node.target)
    if matcher is None and node.target in _SOFTMAX_TAILS and rows.softmax_input(node) is not None:
        matcher = rows.softmax
    if matcher is not None:
        result = matcher(state, node)
        assert result is not None
        return result
    if scalar_factor(node) is not None:
        return Refusal("the device multiplies by a constant only within attention, as its scale")
    if node.target in REARRANGING:
        return Refusal("it copies a tensor between what the device computes")
    if node.target is aten.native_dropout.default:
        return Refusal("dropout is active: call model.eval()")
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return _higher_order(node.target.name())
    return Refusal(f"the device has no {_op_name(node)}")


def _higher_order(name: str) -> Refusal:
    if "flex_attention" in name:
        return Refusal(
            "flex_attention calls back for each score, the device has attention without a mask only: use "
            "scaled_dot_product_attention (attn_implementation='sdpa' in transformers)"
        )
    return Refusal(f"{name} is a higher-order op: it and all that it calls stay on the CPU")


def _op_name(node: fx.Node) -> str:
    name = str(node.target)
    return name.split(".")[1] if name.startswith("aten.") else name
