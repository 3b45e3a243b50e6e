"""How a region's parameters come from the graph's inputs: the ops between, applied when weights are packed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from torch_xdna.devices import Executable
from torch_xdna.matching.state import Weight


class Recipe(NamedTuple):
    """How a region's parameter comes from the graph's inputs: `tree` is an input's number or an op's call."""

    param: str
    shape: tuple[int, ...]
    tree: Any


class _Call(NamedTuple):
    target: Any
    args: tuple
    kwargs: tuple


class _Input(NamedTuple):
    number: int


def recipes_of(weights: Mapping[str, Weight], sources: list[fx.Node]) -> tuple[Recipe, ...]:
    def tree(arg: Any) -> Any:
        if isinstance(arg, (list, tuple)):
            return tuple(map(tree, arg))
        if not isinstance(arg, fx.Node):
            return arg
        if arg in sources:
            return _Input(sources.index(arg))
        return _Call(arg.target, tree(arg.args), tuple((k, tree(v)) for k, v in arg.kwargs.items()))

    return tuple(Recipe(name, w.shape, tree(w.node)) for name, w in weights.items())


def pack(executable: Executable, recipes: tuple[Recipe, ...], sources: Sequence[Tensor]) -> Any:
    def value(tree: Any) -> Any:
        if isinstance(tree, _Input):
            return sources[tree.number]
        if isinstance(tree, _Call):
            return tree.target(*map(value, tree.args), **{k: value(v) for k, v in tree.kwargs})
        return [value(t) for t in tree] if isinstance(tree, tuple) else tree

    # Normal tensors even if the first call comes under inference_mode: a later call may not.
    with torch.inference_mode(False), torch.no_grad():
        params = {r.param: value(r.tree) for r in recipes}
        return executable.pack({r.param: _shaped(params[r.param], r.shape) for r in recipes})


def _shaped(param: Tensor, shape: tuple[int, ...]) -> Tensor:
    if param.shape == shape:
        return param
    return (
        param.reshape(shape)
        if param.numel() == math.prod(shape)
        else param.reshape(param.shape[-len(shape) :]).expand(shape)
    )
