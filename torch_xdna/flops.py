"""How much arithmetic an op of an ATen graph is: what a report weighs its rows by.

Counted as torch counts (`torch.utils.flop_counter`): multiplications and additions of matrix products, convolutions and
attention. Whatever works on elements or rows counts as nothing. A symbolic size counts as it was traced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import flop_counter

aten = torch.ops.aten


def flops(node: fx.Node) -> int:
    """Multiplications and additions of a node of an ATen graph; 0 for what is no product."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return 0
    args: Any = fx.map_arg(node.args, _value)
    packet = node.target.overloadpacket
    if packet is aten.linear:
        x, weight = args[:2]
        return 2 * _count(x.shape) * _int(weight.shape[0])
    if packet in (aten.scaled_dot_product_attention, aten._scaled_dot_product_flash_attention_for_cpu):
        shapes = [tuple(map(_int, t.shape)) for t in args[:3]]
        return int(flop_counter.sdpa_flop_count(*map(_batched, shapes)))
    count = flop_counter.flop_registry.get(packet)
    if count is None:
        return 0
    return int(count(*_sized(args), **_sized(dict(node.kwargs)), out_val=_sized(_value(node))))


def _value(node: fx.Node) -> Any:
    return node.meta.get("val")


def _int(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _count(sizes: Any) -> int:
    total = 1
    for size in sizes:
        total *= _int(size)
    return total


def _batched(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(batch, heads, rows, columns), whatever leading dimensions there are."""
    *lead, rows, columns = shape
    return (1, _count(lead), rows, columns)


def _sized(value: Any) -> Any:
    """Tensors on the meta device in place of those with symbolic sizes: the counters want numbers."""
    if isinstance(value, torch.Tensor):
        return torch.empty(tuple(map(_int, value.shape)), device="meta")
    if isinstance(value, (list, tuple)):
        return type(value)(map(_sized, value))
    if isinstance(value, dict):
        return {key: _sized(item) for key, item in value.items()}
    return _int(value) if isinstance(value, torch.SymInt) else value
