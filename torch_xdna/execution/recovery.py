"""When a device fails in the middle of its work: the region's ops run eager, and the reason is told.

The device has done what it could before it raises a DeviceError (the NPU retries a failed run on a new
context). Nothing of the failed run is used: the region's tensors are computed again from its inputs, by the
graph's own nodes, so the result is eager's.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

from torch_xdna.errors import DeviceError, FallbackError
from torch_xdna.partitioning.regions import GraphRegion

_WARNED: set[str] = set()


@dataclass
class Recovery:
    """What to do when regions of one graph fail. `failures`: what happened, as sentence -> failed calls.

    fallback: as in `torch_xdna.settings.Settings`.
    """

    fallback: str = "eager"
    failures: Counter[str] = field(default_factory=Counter)

    def recover(self, region: str, error: DeviceError, eager: Callable[[], list[Tensor]]) -> list[Tensor]:
        """The region's tensors in spite of `error`. Raises FallbackError if falling back is forbidden."""
        sentence = f"region {region} runs eager on the CPU, because {error}"
        self.failures[sentence] += 1
        if self.fallback == "error":
            raise FallbackError(
                f"the device failed in region {region}: {error}; fallback='eager' runs its ops on the CPU"
            ) from error
        if sentence not in _WARNED:
            _WARNED.add(sentence)
            warnings.warn(f"xdna: {sentence}", stacklevel=2)
        return eager()


def eager_twin(
    gm: fx.GraphModule, part: GraphRegion, reads: Sequence[fx.Node]
) -> tuple[fx.GraphModule, list[fx.Node]]:
    """The graph's own nodes of a region as a module of `reads` and of further placeholders of the graph
    (sizes), which are returned; its results are the tensors of the part's outputs."""
    needed: set[fx.Node] = set()
    todo = [border.node for border in part.outputs]
    while todo:
        node = todo.pop()
        if node in needed:
            continue
        needed.add(node)
        if node not in reads:
            todo += node.all_input_nodes
    more = [n for n in gm.graph.nodes if n in needed and n.op == "placeholder" and n not in reads]
    graph = fx.Graph()
    new = {node: graph.placeholder(node.name) for node in [*reads, *more]}
    for node in gm.graph.nodes:
        if node in needed and node not in new:
            new[node] = graph.node_copy(node, new.__getitem__)
    graph.output([new[border.node] for border in part.outputs])
    return fx.GraphModule(gm, graph), more


def forget() -> None:
    """Warn again."""
    _WARNED.clear()


def without_data(args: Sequence[Any]) -> bool:
    """Whether tensors have shapes only (FakeTensorMode, the meta device): a graph's own nodes give shapes as well."""
    if any(isinstance(a, FakeTensor) or (isinstance(a, Tensor) and a.is_meta) for a in args):
        return True
    return isinstance(_get_current_dispatch_mode(), FakeTensorMode)


def without_grad(module: fx.GraphModule, args: Sequence[Tensor]) -> list[Tensor]:
    """Run a twin as the compiled graph runs."""
    with torch.no_grad():
        return list(module(*args))
