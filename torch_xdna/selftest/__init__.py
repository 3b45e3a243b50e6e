"""For owners of the hardware: a ladder from the smallest program to an encoder on the NPU, compared, measured,
written to one file after every rung.

    report = run()               # raises DeviceError where there is no usable NPU
    report["passed"]             # every rung passed, or can't be shown here

The report is plain data (JSON): what the machine is (`torch-xdna doctor`'s findings), per rung its result, likely
causes and what to try next (`ladder`, `rungs`), per case the error and
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

from torch_xdna.doctor import diagnose
from torch_xdna.doctor.driver import DriverFacts, ask
from torch_xdna.selftest.cases import all_cases
from torch_xdna.selftest.ladder import Ladder, outcome
from torch_xdna.selftest.rungs import IMPOSSIBLE, PASSED, climb

NODE = "/dev/accel/accel0"
ASSUMED_CLOCK_GHZ = 1.6  # for the modelled times, if the driver tells no clock under load


def run(
    *,
    overlay: str | None = None,
    columns: int = 4,
    quick: bool = False,
    repeats: int = 20,
    progress: Callable[[str], None] = lambda text: None,
    record: Callable[[dict[str, Any]], None] = lambda report: None,
) -> dict[str, Any]:
    """The report. `quick`: small shapes only. `repeats`: runs per measurement. `record` gets the report after
    every rung, so that nothing is lost if a later one takes the machine down.

    Raises NpuError if the NPU can't be opened, after recording that; what fails later is part of the report.
    """
    clock = functools.cache(lambda: _clock(ask(NODE)))  # first asked after the array has worked
    ladder = Ladder(overlay=overlay, columns=columns, quick=quick, repeats=repeats, clock=lambda: clock()[0])
    machine = {
        "package": _version(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "columns": columns,
    }
    rungs = list(ladder.rungs())
    shapes = {case.name: case for case in all_cases(quick=quick)}
    measured = ("dispatch", "bandwidth", "sync")

    def report(results: list[dict[str, Any]]) -> dict[str, Any]:
        outcomes = {result["name"]: outcome(result) for result in results}
        cases = [
            {
                "name": name,
                "shape": case.shape,
                "tolerance": case.tolerance,
                "passed": False,
                **outcomes[name],
            }
            for name, case in shapes.items()
            if name in outcomes
        ]
        return {
            "complete": len(results) == len(rungs),
            "passed": len(results) == len(rungs)
            and all(r["status"] in (PASSED, IMPOSSIBLE) for r in results),
            **machine,
            "overlay": None if ladder.device is None else ladder.device.path.name,
            "rungs": results,
            **{name: outcomes.get(name, {"error": "not reached"}) for name in measured},
            "cases": cases,
            "lowered_with_iterated_descriptors": ladder.iterated,
            "larger_encoders_split": ladder.split,
        }

    results = climb(rungs, lambda done: record(report(done)), progress)
    if ladder.failure is not None:
        raise ladder.failure
    done = report(results) | {
        "doctor": [dataclasses.asdict(c) for c in diagnose(columns=columns, overlay=overlay)],
        "driver": dataclasses.asdict(ask(NODE)),
        "modelled_at": {
            "clock_ghz": clock()[0],
            "clock": clock()[1],
            "note": "modelled times are no measurements",
        },
    }
    if ladder.device is not None:
        done["runtime"] = dataclasses.asdict(ladder.device.stats)
    record(done)
    return done


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
