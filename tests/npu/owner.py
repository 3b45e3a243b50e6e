"""Inside the sandbox: the self-test as an owner of the hardware runs it, with the array simulator as the
NPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import stack
from sandbox import inside

from lowering.overlay import overlay
from torch_xdna import selftest
from torch_xdna.devices import npu
from torch_xdna.devices.array import Simulator


def selftest_report(xclbin: str) -> dict[str, Any]:
    stack.simulate(4)
    return selftest.run(overlay=xclbin, quick=True, repeats=1)


def broken_array(xclbin: str) -> dict[str, Any]:
    """An array that flips a bit of the exponent in one of fifty values, on every run."""
    simulator = Simulator(overlay(4))

    def execute(words: np.ndarray, arguments: list[np.ndarray]) -> None:
        simulator.run(words, arguments)
        arguments[1].view(np.uint16)[::50] ^= 0x0100

    inside.play(execute)
    return selftest.run(overlay=xclbin, quick=True, repeats=1)


def failing_at_each(xclbin: str) -> dict[str, Any]:
    """Results of ladders in each of which the array fails every run of one rung. Needs nothing else to fail."""
    simulator = Simulator(overlay(4))
    now, target, ran = "", "", set[str]()

    def execute(words: np.ndarray, arguments: list[np.ndarray]) -> int | None:
        ran.add(now)
        if now == target:
            return inside.ERROR
        simulator.run(words, arguments)
        return None

    def began(name: str) -> None:
        nonlocal now
        now = name

    def climbed() -> list[dict[str, Any]]:
        npu.reset()  # as a new process would begin
        return selftest.run(overlay=xclbin, quick=True, repeats=1, progress=began)["rungs"]

    inside.play(execute)
    climbed()
    results = {}
    for name in sorted(ran):
        target = name
        results[name] = climbed()
    return results
