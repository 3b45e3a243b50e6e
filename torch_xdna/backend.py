"""`torch.compile(..., backend="xdna")`: the function behind the entry point `torch_dynamo_backends`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from lowering.overlay.variants import FULL
from torch_xdna import recovery as recovering
from torch_xdna import report as reporting
from torch_xdna import runtime as running
from torch_xdna.devices import Device, select
from torch_xdna.errors import XdnaError
from torch_xdna.matching import Refusal
from torch_xdna.place import ASIDE, check_fallback, place, training_rows
from torch_xdna.recovery import Recovery
from torch_xdna.report import EAGER, GraphReport, Row
from torch_xdna.runtime import RegionCall, RegionRefused, assemble
from torch_xdna.settings import Settings, refuse_mode
from torch_xdna.trace import Origin, origin, to_aten


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
    running.forget()
    reporting.forget()
    recovering.forget()
    _WARNED.clear()


xdna.reset = _reset  # type: ignore[attr-defined]


def _compile(
    gm: fx.GraphModule, example_inputs: Sequence[Any], settings: Settings, device: Device
) -> Callable[..., Any]:
    of = origin(gm)

    def compile_aten(aten: fx.GraphModule) -> Callable[..., Any]:
        compiled, graph = _assemble(aten, of, device, settings)
        _tell(graph.rows, settings)
        return _Compiled(compiled, graph)

    compiled = to_aten(gm, example_inputs, compile_aten)
    if compiled is not None:
        return compiled
    rows = training_rows(gm)
    _tell(rows, settings)
    return _Compiled(gm.forward, GraphReport(of.name, of.frame, rows, device=device.name))


class _Compiled:
    """A compiled graph; while it lives, its report is among torch_xdna.reports()."""

    def __init__(self, run: Callable[..., Any], graph: GraphReport) -> None:
        self._run = run
        self._report = reporting.recorded(graph)

    def __call__(self, *args: Any) -> Any:
        return self._run(*args)


def _assemble(
    aten: fx.GraphModule, of: Origin, device: Device, settings: Settings
) -> tuple[Callable[..., Any], GraphReport]:
    recovery = Recovery(settings.fallback)
    banned: dict[fx.Node, Refusal] = {}
    variant = getattr(device, "variant", FULL)
    while True:
        parts, rows = place(aten, of, banned, variant)
        try:
            assembled = assemble(aten, parts, device, recovery)
            break
        except RegionRefused as refused:
            # The device can't take this region (a limit that only lowering knows): its ops run eager, with
            # its words.
            banned.update((n, Refusal(str(refused))) for n in refused.nodes)
    regions = tuple(plan.region for plan in parts.plans)
    # Its other children are the graphs that a higher-order op calls.
    executables = tuple(c.prepared.executable for c in assembled.children() if isinstance(c, RegionCall))
    report = GraphReport(of.name, of.frame, rows, regions, device.name, executables, recovery.failures)
    return assembled.forward, report


def _tell(rows: tuple[Row, ...], settings: Settings) -> None:
    if settings.fallback == "error":
        check_fallback(rows)
    for row in rows:
        if row.where == EAGER and row.reason != ASIDE:
            _warn_once(row)


def _warn_once(row: Row) -> None:
    """One warning for each distinct reason."""
    if row.reason not in _WARNED:
        _WARNED.add(row.reason)
        warnings.warn(
            f"xdna: {row.op} of {row.name}, shape {list(row.shape)}, runs eager on the CPU, "
            f"because {row.reason}",
            stacklevel=2,
        )


_WARNED: set[str] = set()


def _raising(error: XdnaError) -> Callable[..., Any]:
    def raise_error(*_: Any) -> Any:
        raise error

    return raise_error
