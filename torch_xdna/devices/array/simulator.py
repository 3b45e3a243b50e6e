"""The array simulator: executes a stream of instruction words on the overlay, block by block.

    stats = Simulator(overlay(4)).run(words, [weights, activations])

It runs under any interpreter with numpy. The words are decoded, never the Python objects they came from; the
core program, the FIFOs and their depths come from the overlay's description; the kernels are the C++ sources
compiled for the CPU. Everything that would hang or corrupt hardware raises `HardwareFault`. Like the real array, a
simulator keeps its state from run to run: core memories, FIFO positions, descriptors.

Design notes:
- One object of a FIFO is one event per hop. Words and wires below that add nothing that a program could get
  wrong, and a whole encoder has 10^5 objects but 10^9 words.
- A descriptor's data are copied when a piece has passed, so a program that overwrites what is still being
  read would get wrong data; it is refused before, when the overwriting task is pushed (see
  `torch_xdna.devices.array.shim`).
- Time comes from `lowering.time.Costs` and is modelled. No verdict depends on it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from torch_xdna.devices.array.arguments import Argument, Range
from torch_xdna.devices.array.array import Array
from torch_xdna.devices.array.context import Kernel
from torch_xdna.devices.array.controller import Controller, numbered
from torch_xdna.devices.array.core import no_kernels
from torch_xdna.devices.array.diagnosis import check_finished, deadlock
from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.devices.array.timeline import Trace
from torch_xdna.lowering.commands.decode import device_columns
from torch_xdna.lowering.overlay.description import Overlay
from torch_xdna.lowering.overlay.description import overlay as describe
from torch_xdna.lowering.time.costs import Costs

DEFAULT_CLOCK_GHZ = 1.6  # one of the clocks seen on real machines; only modelled times depend on it


@dataclass
class RunStats:
    """One run. Times are modelled: `cycles` of the core clock from the first instruction to the last."""

    cycles: float
    clock_ghz: float
    events: int
    instructions: int  # records of the stream
    kernel_calls: int
    bytes_moved: int  # between device memory and the array
    core_busy: list[float] = field(default_factory=list)  # cycles in kernels, per core
    trace: Trace | None = None

    @property
    def modelled_seconds(self) -> float:
        return self.cycles / self.clock_ghz * 1e-9


class Simulator:
    """One array with one overlay. `kernels=False` computes nothing and only keeps the time."""

    def __init__(
        self,
        overlay: Overlay,
        *,
        costs: Costs | None = None,
        kernels: Mapping[str, Kernel] | bool = True,
    ):
        self.overlay = overlay
        self.costs = costs or Costs(clock_ghz=DEFAULT_CLOCK_GHZ)
        self.kernels = _kernels(kernels, overlay)
        self.runs = 0
        self.configurations = 0  # how often the overlay was loaded: once, unless a run was refused
        self._array: Array | None = None

    def run(
        self,
        words: np.ndarray,
        arguments: Sequence[np.ndarray],
        written: Sequence[Sequence[Range] | None] | None = None,
        results: Sequence[Sequence[Range]] | None = None,
        trace: bool = False,
    ) -> RunStats:
        """Execute an instruction stream; the arguments (contiguous uint8 arrays) are read and written in
        place.

        `written`: per argument the byte ranges that the host wrote, None for all of it. `results`: per
        argument the ranges that the host will read, refused if the stream leaves any of it unwritten. Raises
        `HardwareFault`; the array is then configured anew for the next run, as hardware would have to be.
        """
        return self._run(words, _memory(arguments, written), results, trace)

    def run_all(
        self,
        dispatches: Sequence[np.ndarray],
        arguments: Sequence[np.ndarray],
        written: Sequence[Sequence[Range] | None] | None = None,
        results: Sequence[Sequence[Range]] | None = None,
    ) -> list[RunStats]:
        """`run` for streams that go on with each other's memory, as the dispatches of a split program; the results
        must be there after the last."""
        memory = _memory(arguments, written)
        last = len(dispatches) - 1
        return [
            self._run(words, memory, results if i == last else None, False)
            for i, words in enumerate(dispatches)
        ]

    def _run(
        self,
        words: np.ndarray,
        memory: list[Argument],
        results: Sequence[Sequence[Range]] | None,
        trace: bool,
    ) -> RunStats:
        commands = numbered(words)
        array = self._array or self._configure()
        self._array = None  # until the run has ended well
        self.runs += 1
        array.context.trace = Trace() if trace else None
        begin = array.context.engine.now
        counters = array.context.engine.events, array.context.moved_words, sum(c.calls for c in array.cores)
        busy = [c.busy for c in array.cores]
        controller = Controller(array, commands, memory)
        controller.start()
        array.context.engine.run()
        if not controller.finished:
            raise HardwareFault("deadlock", deadlock(array, controller))
        check_finished(array, memory, results)
        self._array = array
        return RunStats(
            cycles=controller.end - begin,
            clock_ghz=self.costs.clock_ghz,
            events=array.context.engine.events - counters[0],
            instructions=len(commands),
            bytes_moved=4 * (array.context.moved_words - counters[1]),
            kernel_calls=sum(c.calls for c in array.cores) - counters[2],
            core_busy=[c.busy - b for c, b in zip(array.cores, busy)],
            trace=array.context.trace,
        )

    def _configure(self) -> Array:
        self.configurations += 1
        return Array(self.overlay, self.costs, self.kernels)


def _memory(
    arguments: Sequence[np.ndarray], written: Sequence[Sequence[Range] | None] | None
) -> list[Argument]:
    return [Argument(i, a, written[i] if written else None) for i, a in enumerate(arguments)]


def execute(words: np.ndarray, buffers: Sequence[np.ndarray]) -> RunStats:
    """Run a stream on buffers that are all the host's: what the hardware does with a kernel call's arguments.

    `buffers`: contiguous uint8 arrays, changed in place. The array for the columns that the stream's header names is
    configured at the first call and kept.
    """
    return _simulator(device_columns(words)).run(words, buffers)


@functools.cache
def _simulator(columns: int) -> Simulator:
    return Simulator(describe(columns))


def _kernels(chosen: Mapping[str, Kernel] | bool, overlay: Overlay) -> Mapping[str, Kernel]:
    if chosen is True:
        from torch_xdna.devices.array.kernels import host_kernels  # compiles at first use

        return host_kernels(overlay.variant.defines)
    return chosen or no_kernels()
