"""`torch_xdna.explain`: what would run where, without a device."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn

from torch_xdna.capture import origin, to_aten
from torch_xdna.devices.npu.overlay import installed_variant
from torch_xdna.lowering.ops import Region
from torch_xdna.lowering.overlay.variants import Variant
from torch_xdna.partitioning.decision import decide
from torch_xdna.report import GraphReport, Report
from torch_xdna.report_rows import report_rows, training_rows
from torch_xdna.switches import switched_off

_ENOUGH = 1 << 30  # compiles of one function


def explain(fn_or_module: Callable[..., Any], *args: Any, **kwargs: Any) -> Report:
    """Where each op of `fn_or_module(*args, **kwargs)` would run with backend="xdna", and why; needs no device.
    An overlay that was built without some ops counts, if it is installed.

    The call is made once, eagerly, under torch.no_grad() (a graph that needs gradients runs eager as a
    whole), and explained as the first of its kind: what was compiled or explained before in this process
    makes no difference to it, nor it to what comes. With tensors on the meta device, or under a
    FakeTensorMode, nothing is computed and large models cost seconds. Where torch.compile is switched off
    the report says so.
    """
    report = Report(off=switched_off() or "")
    with torch.no_grad(), _uncompiled(fn_or_module) as target, _apart():
        _compiled(target, _Explaining(report, installed_variant()))(*args, **kwargs)
    return report


def capture_regions(fn_or_module: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Region]:
    """The regions that `fn_or_module(*args, **kwargs)` would send to a device; see `explain`."""
    report = explain(fn_or_module, *args, **kwargs)
    if report.off:
        warnings.warn(f"xdna: {report.summary()}", stacklevel=2)
    return report.region_list


class _Explaining:
    """A backend that runs eager and, at each run, notes what graph it ran. One for each report: Dynamo
    reuses what it compiled for a backend."""

    def __init__(self, report: Report, variant: Variant) -> None:
        self._report, self._variant = report, variant

    def __call__(self, gm: fx.GraphModule, example_inputs: Sequence[Any], **_: Any) -> Callable[..., Any]:
        captured = origin(gm)

        def noting(run: Callable[..., Any], graph: GraphReport) -> Callable[..., Any]:
            def run_and_note(*args: Any) -> Any:
                self._report.graphs.append(graph)
                return run(*args)

            return run_and_note

        def compile_aten(aten: fx.GraphModule) -> Callable[..., Any]:
            matched, parts = decide(aten, captured, variant=self._variant)
            rows = report_rows(aten.graph, matched, parts)
            regions = tuple(part.region for part in parts.regions)
            return noting(aten.forward, GraphReport(captured.name, captured.frame, rows, regions))

        return to_aten(gm, example_inputs, compile_aten) or noting(
            gm.forward, GraphReport(captured.name, captured.frame, training_rows(gm))
        )


def _compiled(target: Any, backend: Any) -> Callable[..., Any]:
    # Where torch can (2.13), its compiles do not count for the limit of anyone else's.
    alone = "isolate_recompiles" in inspect.signature(torch.compile).parameters
    options: dict[str, Any] = {"isolate_recompiles": True} if alone else {}
    return torch.compile(target, backend=backend, **options)


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Dynamo without memory of the sizes that earlier calls of the same code had (it would make those that
    differ symbolic), and without a limit of compiles; afterwards as it was.

    The memory is no official interface; without it the first of several explanations is as it should be.
    """
    limits = {
        name: _ENOUGH
        for name in ("recompile_limit", "accumulated_recompile_limit")
        if hasattr(torch._dynamo.config, name)
    }
    with torch._dynamo.config.patch(limits):
        try:
            from torch._dynamo import pgo

            kept = pgo._CODE_STATE
        except (ImportError, AttributeError):
            yield
            return
        pgo._CODE_STATE = defaultdict(pgo.CodeState)
        try:
            yield
        finally:
            pgo._CODE_STATE = kept


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
