"""`torch.compile(..., backend="xdna")`: the function behind the entry point `torch_dynamo_backends`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from torch_xdna import report, report_rows
from torch_xdna.capture import Origin, origin, to_aten
from torch_xdna.devices import Device, select
from torch_xdna.dump import Dump, InternalError
from torch_xdna.errors import XdnaError
from torch_xdna.execution import recovery, region_call
from torch_xdna.execution.graph import CompiledGraph, assemble
from torch_xdna.execution.region_call import RegionRefused
from torch_xdna.lowering.overlay.variants import FULL
from torch_xdna.matching import MatchState, Refusal
from torch_xdna.partitioning.decision import decide
from torch_xdna.partitioning.partition import Partition
from torch_xdna.report import GraphReport, Row
from torch_xdna.settings import Settings, refuse_mode


def xdna(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compile one of Dynamo's graphs. `options`: see torch_xdna.settings.Settings.

    A user's mistake (SettingsError), an unusable device (DeviceError) and a forbidden fallback
    (FallbackError) are raised by the call of what is returned, which is the user's own call: raised here,
    Dynamo would wrap them.
    """
    try:
        refuse_mode(mode)
        settings = Settings.from_options(options)
        device = select(
            settings.device,
            columns=settings.columns,
            overlay=settings.overlay,
            iterated=settings.iterated,
            split=settings.split,
        )
        return _compile(gm, example_inputs, settings, device)
    except XdnaError as error:
        return _raising(error)


def _reset() -> None:
    """Called by torch._dynamo.reset()."""
    region_call.forget()
    report.forget()
    recovery.forget()
    report_rows.forget()


xdna.reset = _reset  # type: ignore[attr-defined]


def _compile(
    gm: fx.GraphModule, example_inputs: Sequence[Any], settings: Settings, device: Device
) -> Callable[..., Any]:
    """The pipeline; each line is a folder or a module of this package."""
    captured = origin(gm)  # capture: the user's names
    dump = Dump(captured.name)
    dump.graph("0_dynamo", gm)

    def compile_aten(aten: fx.GraphModule) -> Callable[..., Any]:
        dump.graph("1_aten", aten)
        matched, parts, run = _build(aten, captured, device, settings)
        rows = report_rows.report_rows(aten.graph, matched, parts)  # report
        graph = _report(captured, rows, parts, run, device)
        dump.compiled(graph, settings)
        report_rows.tell(rows, settings.fallback)
        return _Compiled(run.forward, graph)

    if compiled := to_aten(gm, example_inputs, compile_aten):  # capture: Dynamo's graph -> ATen
        return compiled
    rows = report_rows.training_rows(gm)
    graph = GraphReport(captured.name, captured.frame, rows, device=device.name)
    dump.compiled(graph, settings)
    report_rows.tell(rows, settings.fallback)
    return _Compiled(gm.forward, graph)


def _build(
    aten: fx.GraphModule, captured: Origin, device: Device, settings: Settings
) -> tuple[MatchState, Partition, CompiledGraph]:
    banned: dict[fx.Node, Refusal] = {}
    variant = getattr(device, "variant", FULL)
    while True:
        try:
            matched, parts = decide(aten, captured, banned, variant)  # matching, partitioning
            return matched, parts, assemble(aten, parts, device, settings.fallback)  # execution, devices
        except RegionRefused as refused:
            # A limit that only lowering knows: the region's ops run eager, with its words.
            banned.update((n, Refusal(str(refused))) for n in refused.nodes)
        except Exception as error:
            if isinstance(error, XdnaError) or type(error).__module__.startswith("torch."):
                raise  # said already, or torch's own way to ask for another trace
            raise InternalError(f"compiling {captured.name}", error) from error


def _report(
    captured: Origin, rows: tuple[Row, ...], parts: Partition, run: CompiledGraph, device: Device
) -> GraphReport:
    return GraphReport(
        captured.name,
        captured.frame,
        rows,
        tuple(part.region for part in parts.regions),
        device.name,
        run.executables,
        run.failures,
    )


class _Compiled:
    """A compiled graph; while it lives, its report is among torch_xdna.reports()."""

    def __init__(self, run: Callable[..., Any], graph: GraphReport) -> None:
        self._run = run
        self._report = report.recorded(graph)

    def __call__(self, *args: Any) -> Any:
        return self._run(*args)


def _raising(error: XdnaError) -> Callable[..., Any]:
    def raise_error(*_: Any) -> Any:
        raise error

    return raise_error
