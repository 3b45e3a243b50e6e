"""`torch_xdna.explain`: what would run where, without a device."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn

from lowering.ops import Region
from lowering.overlay.variants import Variant
from torch_xdna.devices.npu.overlay import installed_variant
from torch_xdna.place import place, training_rows
from torch_xdna.report import GraphReport, Report
from torch_xdna.trace import origin, to_aten


def explain(fn_or_module: Callable[..., Any], *args: Any, **kwargs: Any) -> Report:
    """Where each op of a call would run with backend="xdna", and why; needs no device. An overlay that was built
    without some ops counts, if it is installed.

    The call is made once, eagerly, under torch.no_grad() (a graph that needs gradients runs eager as a
    whole). With tensors on the meta device, or under a FakeTensorMode, nothing is computed and large models
    cost seconds.
    """
    _found.graphs = report = Report()
    try:
        with torch.no_grad(), _uncompiled(fn_or_module) as target:
            torch.compile(target, backend=_explaining(installed_variant()))(*args, **kwargs)
    finally:
        _found.graphs = None
    return report


def capture_regions(fn_or_module: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Region]:
    """The regions that a call would send to a device; see `explain`."""
    return explain(fn_or_module, *args, **kwargs).region_list


class _Found(threading.local):
    graphs: Report | None = None


_found = _Found()


@functools.cache
def _explaining(variant: Variant) -> Callable[..., Any]:
    """A backend of its own for each overlay, because Dynamo reuses the compiles of a backend."""
    return functools.partial(_explain_graph, variant)


def _explain_graph(variant: Variant, gm: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    """Runs eager and, at each run, notes what graph it ran."""
    of = origin(gm)

    def noting(run: Callable[..., Any], graph: GraphReport) -> Callable[..., Any]:
        def run_and_note(*args: Any) -> Any:
            if _found.graphs is not None:
                _found.graphs.graphs.append(graph)
            return run(*args)

        return run_and_note

    def compile_aten(aten: fx.GraphModule) -> Callable[..., Any]:
        parts, rows = place(aten, of, variant=variant)
        regions = tuple(plan.region for plan in parts.plans)
        return noting(aten.forward, GraphReport(of.name, of.frame, rows, regions))

    return to_aten(gm, example_inputs, compile_aten) or noting(
        gm.forward, GraphReport(of.name, of.frame, training_rows(gm))
    )


@contextlib.contextmanager
def _uncompiled(target: Any) -> Iterator[Any]:
    """The function or module itself if it was compiled already, by torch.compile or module.compile."""
    target = (
        getattr(target, "_orig_mod", None) or getattr(target, "_torchdynamo_orig_callable", None) or target
    )
    compiled = getattr(target, "_compiled_call_impl", None) if isinstance(target, nn.Module) else None
    if compiled is None:
        yield target
        return
    target._compiled_call_impl = None
    try:
        yield target
    finally:
        target._compiled_call_impl = compiled
