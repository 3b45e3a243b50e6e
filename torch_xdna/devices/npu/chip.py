"""What one process shares: one hardware context for all models and shapes, the count of failures, fork and
exit.

A failed run leaves the array in an unknown state, so the context is dropped and the next run opens a new one
(a new `generation`); buffers of the old one are never used again. When a run has failed on two contexts in a
row the NPU is turned off for this process.
"""

from __future__ import annotations

import atexit
import functools
import os
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from torch_xdna.devices.npu import buffers as memory
from torch_xdna.devices.npu import flush, lifetime, overlay
from torch_xdna.devices.npu.buffers import Buffer
from torch_xdna.devices.npu.context import Context, open_context
from torch_xdna.devices.npu.errors import NpuError, NpuMemory, NpuOff, OtherProcess
from torch_xdna.devices.npu.stats import NpuStats
from torch_xdna.lowering.overlay.variants import Variant

IN_FLIGHT = 4  # commands per context that the driver queues; a fifth would block in `start`, holding the GIL
CONTEXT_PATIENCE_S = 10.0
RUN_TIMEOUT_S = (
    10.0  # the largest encoder is far below one second; the driver's own watchdog fires after 2 s or never
)

_runtimes: dict[tuple[Path, int], Npu] = {}
_lock = threading.Lock()


def runtime(
    given: str | None,
    *,
    columns: int = 4,
    patience: float = CONTEXT_PATIENCE_S,
    run_timeout: float = RUN_TIMEOUT_S,
) -> Npu:
    """The process's Npu for that overlay, opened. `patience`: seconds to wait for a free hardware context;
    `run_timeout`: seconds until a run counts as failed. Raises NpuError."""
    path = overlay.locate(given, columns)
    flush.chosen()  # a wrong setting is refused before anything is opened
    with _lock:
        npu = _runtimes.get((path, columns))
        if npu is None:
            npu = Npu(path, columns)
        npu.patience, npu.run_timeout = patience, run_timeout
        npu.context()
        _runtimes[path, columns] = npu
        return npu


def reset() -> None:
    """Turn every Npu of this process on again."""
    for npu in list(_runtimes.values()):
        npu.turn_on()


class Tenant(Protocol):
    """What runs on the NPU and has to let go of it, as `torch_xdna.devices.npu.loaded_program.NpuProgram`."""

    def reap(self) -> None: ...
    def stuck(self) -> int: ...
    def release_idle(self, owner: int) -> None: ...
    def shut(self) -> None: ...
    def owned(self) -> Any: ...


class Npu:
    """The NPU with one overlay, for one process. Methods may be called from any thread."""

    def __init__(self, path: Path, columns: int) -> None:
        self.path, self.columns = path, columns
        self.patience, self.run_timeout = CONTEXT_PATIENCE_S, RUN_TIMEOUT_S
        self.lock = threading.RLock()
        self.places = threading.BoundedSemaphore(IN_FLIGHT)
        self.stats = NpuStats()
        self.generation = 0
        self.off: str | None = None
        self.last_failure: str | None = None
        self._pid = os.getpid()
        self._context: Context | None = None
        # (id of the program, number of its dispatch) -> the words, least recent first
        self._code: OrderedDict[tuple[int, int], Buffer] = OrderedDict()
        self._programs: weakref.WeakSet[Tenant] = weakref.WeakSet()

    @functools.cached_property
    def variant(self) -> Variant:
        """What the overlay can do. Raises NpuUnavailable if its file is not usable (any more)."""
        return overlay.variant_of(self.path, columns=self.columns)

    def lodge(self, program: Tenant) -> None:
        """Have a program take part in what happens to the context; no reference is kept."""
        self._programs.add(program)

    def context(self) -> Context:
        """The open context, opened now if there is none. Raises NpuError if that can't be."""
        if os.getpid() != self._pid:
            raise OtherProcess(
                f"the NPU was opened by process {self._pid} before it forked process {os.getpid()}; a "
                "forked child "
                "can't use it: start workers with multiprocessing's 'spawn', or compile in the child only"
            )
        with self.lock:
            if self.off is not None:
                raise NpuOff(self.off)
            if self._context is None:
                self._context = open_context(
                    self.path,
                    columns=self.columns,
                    generation=self.generation,
                    patience=self.patience,
                    let_go=self._let_go,
                )
                self.stats.overlay_changes += 1
            return self._context

    def drop(self, generation: int, reason: str) -> None:
        """A run of that generation failed: forget its context and everything that belongs to it."""
        with self.lock:
            self.last_failure = reason
            if generation != self.generation:
                return
            self.generation += 1
            self._code.clear()
            if self._context is not None:
                self._context.close()
                self._context = None
            for program in list(self._programs):
                program.reap()  # idle runs hold the context, and contexts are few

    def _let_go(self) -> int:
        """Free the contexts of runs that ended late; how many runs still go that nobody waits for."""
        programs = list(self._programs)
        for program in programs:
            program.reap()
        return lifetime.kept() + sum(program.stuck() for program in programs)

    def turn_off(self, reason: str) -> None:
        with self.lock:
            self.off = (
                f"the NPU is off for this process: {reason}; `torch_xdna.devices.npu.reset()` turns it on "
                "again"
            )

    def turn_on(self) -> None:
        with self.lock:
            self.off = None

    def code(self, context: Context, key: tuple[int, int], words: np.ndarray) -> Buffer:
        """The instruction buffer of a program's dispatch. The heap for them is small (64 MB): when it is full, those
        that were not used for longest make room (a run in flight keeps its own alive)."""
        with self.lock:
            buffer = self._code.get(key)
            if buffer is None:
                buffer = self._allocate_code(context, words)
                buffer.fill(words)
                buffer.to_device(self.stats)
                if context.generation == self.generation:
                    self._code[key] = buffer
            else:
                self._code.move_to_end(key)
            return buffer

    def forget(self, owner: int) -> None:
        """A program is gone."""
        with self.lock:
            for key in [key for key in self._code if key[0] == owner]:
                del self._code[key]

    def _allocate_code(self, context: Context, words: np.ndarray) -> Buffer:
        while True:
            try:
                what = f"{words.size:,} instruction words"
                return Buffer(context.device, words.nbytes, context.code_group, what, instructions=True)
            except NpuMemory:
                if not self._code:
                    raise
                oldest, _ = self._code.popitem(last=False)
                for program in self._programs:
                    program.release_idle(oldest[0])

    def shut(self) -> None:
        """Close in XRT's order; whatever still runs is kept for ever."""
        with self.lock:
            for program in list(self._programs):
                program.shut()
            self._code.clear()
            if self._context is not None:
                self._context.close()
                self._context = None
            self.generation += 1

    def abandon(self) -> None:
        """In a forked child: keep everything, use nothing (no locks: another thread may have held them)."""
        for program in list(self._programs):
            lifetime.keep_for_ever(program.owned())
        lifetime.keep_for_ever(self._context)


def _after_fork() -> None:
    lifetime.keep_for_ever(memory.live())
    for npu in _runtimes.values():
        npu.abandon()


def _at_exit() -> None:
    for npu in _runtimes.values():
        if os.getpid() == npu._pid:
            npu.shut()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)

__all__ = ["Npu", "NpuError", "reset", "runtime"]
