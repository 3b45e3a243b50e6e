"""Inside the sandbox: the self-test as an owner of the hardware runs it, with the array simulator as the
NPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import stack
from sandbox import inside

from torch_xdna import selftest
from torch_xdna.devices import npu
from torch_xdna.devices.array import Simulator
from torch_xdna.lowering.overlay import overlay
from torch_xdna.selftest import ladder, measure


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
    """A ladder on which nothing fails, and those on which the array fails every run of some rungs: of each that
    others need alone, of the others every second one at a time. `failing`: per ladder which."""
    simulator = Simulator(overlay(4))
    now, targets, ran = "", set[str](), list[str]()

    def execute(words: np.ndarray, arguments: list[np.ndarray]) -> int | None:
        if now not in ran:
            ran.append(now)
        if now in targets:
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
    with short_measurements():
        good = climbed()
        needed = {name for rung in good for name in rung["needs"]}
        alone = [[name] for name in ran if name in needed]
        others = [name for name in ran if name not in needed]
        ladders = []
        for names in [*alone, others[::2], others[1::2]]:
            targets = set(names)
            ladders.append({"failing": names, "rungs": climbed()})
    return {"good": good, "ladders": ladders}


@contextlib.contextmanager
def short_measurements() -> Iterator[None]:
    """What a rung expects is computed once, and nothing is modelled: the stand-in's times mean nothing."""
    saved = ladder.on_the_simulator, ladder.expected, measure.modelled_seconds, measure.PIPELINED
    known: dict[tuple, Any] = {}

    def once(call: Callable[..., Any]) -> Callable[..., Any]:
        def known_or(case: Any, *rest: Any) -> Any:
            key = (
                call.__name__,
                case.name,
                *(words.tobytes() for program in rest for words in program.dispatches),
            )
            if key not in known:
                known[key] = call(case, *rest)
            return known[key]

        return known_or

    ladder.on_the_simulator, ladder.expected = once(saved[0]), once(saved[1])
    measure.modelled_seconds, measure.PIPELINED = lambda *_: 1.0, 1
    try:
        yield
    finally:
        ladder.on_the_simulator, ladder.expected, measure.modelled_seconds, measure.PIPELINED = saved


def misbehaving(xclbin: str, hanging: list[str], wrong: list[str]) -> list[dict[str, Any]]:
    """Results of a ladder on which the runs of some rungs hang until the driver ends them, and those of others give
    flipped bits."""
    simulator = Simulator(overlay(4))
    now = ""

    def execute(words: np.ndarray, arguments: list[np.ndarray]) -> None:
        simulator.run(words, arguments)
        if now in wrong:
            arguments[1].view(np.uint16)[::50] ^= 0x0100

    def began(name: str) -> None:
        nonlocal now
        now = name
        inside.set_knob("HANG", -1 if name in hanging else 0)

    inside.play(execute)
    inside.set_knob("WATCHDOG_MS", 300)  # the driver ends what hangs
    with short_measurements():
        return selftest.run(overlay=xclbin, quick=True, repeats=1, progress=began)["rungs"]
