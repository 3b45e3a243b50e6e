"""For owners of the hardware: every op and a small encoder on the NPU, compared, measured, written to one
file.

    report = run()               # raises DeviceError where there is no usable NPU
    report["passed"]             # every case agrees with the expected numbers

The report is plain data (JSON): what the machine is (`torch-xdna doctor`'s findings), per case the error and
the time beside the modelled time, dispatch latency, bandwidth, what a sync costs. Runs without torch too;
then the expected numbers come from `reference` (numpy) instead of the emulator.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch_xdna.devices import npu
from torch_xdna.devices.npu.errors import NpuError
from torch_xdna.devices.npu.process import Npu
from torch_xdna.doctor import diagnose
from torch_xdna.doctor.driver import DriverFacts, ask
from torch_xdna.selftest import measure
from torch_xdna.selftest.cases import Case, all_cases
from torch_xdna.selftest.expected import compare, expected

NODE = "/dev/accel/accel0"
ASSUMED_CLOCK_GHZ = 1.6  # for the modelled times, if the driver tells no clock under load


def run(
    *,
    overlay: str | None = None,
    columns: int = 4,
    quick: bool = False,
    repeats: int = 20,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The report. `quick`: small shapes only. `repeats`: runs per measurement.

    Raises NpuError if the NPU can't be opened; what fails later is part of the report, as `error`.
    """
    device = npu.runtime(overlay, columns=columns)
    progress("dispatch latency")
    dispatch = _or_error(lambda: measure.dispatch(device, repeats=10 * repeats))
    clock, clock_source = _clock(ask(NODE))
    cases = []
    for case in all_cases(quick=quick):
        progress(case.name)
        device.turn_on()  # a failed case must not hide the others
        facts = {"name": case.name, "shape": case.shape, "tolerance": case.tolerance, "passed": False}
        cases.append(facts | _or_error(functools.partial(_case, case, device, repeats, clock)))
    progress("bandwidth")
    device.turn_on()
    latency = dispatch.get("median_s", 0.0)
    bandwidth = _or_error(lambda: measure.bandwidth(device, latency, quick=quick, repeats=repeats))
    sync = _or_error(lambda: measure.sync(device, repeats=repeats))
    return {
        "passed": all(c["passed"] for c in cases) and not {"error"} & {*dispatch, *bandwidth, *sync},
        "package": _version(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "overlay": device.path.name,
        "columns": columns,
        "doctor": [dataclasses.asdict(c) for c in diagnose(columns=columns, overlay=overlay)],
        "driver": dataclasses.asdict(ask(NODE)),
        "modelled_at": {
            "clock_ghz": clock,
            "clock": clock_source,
            "note": "modelled times are no measurements",
        },
        "dispatch": dispatch,
        "bandwidth": bandwidth,
        "sync": sync,
        "cases": cases,
        "runtime": dataclasses.asdict(device.stats),
    }


def _case(case: Case, device: Npu, repeats: int, clock_ghz: float) -> dict[str, Any]:
    """One region: run, compared, timed."""
    loaded = measure.load(case.region, device)
    weights = loaded.upload(loaded.program.pack_weights(case.params))
    (outputs,) = loaded.run([case.inputs], weights)
    again = loaded.run([case.inputs] * 2, weights)
    source, wanted = expected(case)
    facts = {"compared_with": source, **compare(outputs, wanted)}
    facts["repeatable"] = all(compare(clip, outputs)["max_abs"] == 0 for clip in again)
    facts["passed"] = facts["finite"] and facts["repeatable"] and facts["relative_l2"] <= case.tolerance
    facts |= measure.timed(loaded, case.inputs, weights, repeats)
    facts["modelled_s"] = measure.modelled_seconds(loaded.program, case.params, clock_ghz)
    return facts


def _or_error(facts: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was found; a failure is a result too."""
    try:
        return facts()
    except NpuError as error:
        return {"error": str(error)}


def _clock(facts: DriverFacts) -> tuple[float, str]:
    """The array's clock in GHz, asked right after the array worked; an idle clock says nothing."""
    if facts.clocks_mhz and facts.clocks_mhz[1] > 800:
        return facts.clocks_mhz[1] / 1000, "told by the driver under load"
    return ASSUMED_CLOCK_GHZ, "assumed"


def _version() -> str:
    try:
        return version("torch-xdna")
    except PackageNotFoundError:  # run from a checkout
        return "not installed"
