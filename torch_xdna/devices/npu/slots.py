"""Slots: activations and a run object each, for one run at a time.

A run holds its hardware context, and a run that is dropped before it ended aborts the process. So a slot is let go
of when its run has ended, and then at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch_xdna.devices.npu import binding, lifetime, wait
from torch_xdna.devices.npu.buffers import Buffer
from torch_xdna.devices.npu.context import (
    ARGUMENT_ACTIVATIONS,
    ARGUMENT_OPCODE,
    OPCODE,
    Context,
)
from torch_xdna.devices.npu.stats import NpuStats

GRACE_S = 0.5  # for runs whose results nobody wants any more


@dataclass
class Slot:
    """`busy` while somebody owns it; an orphan's owner left while its run was still going."""

    generation: int
    activations: Buffer
    run: Any
    code: Buffer | None = None
    weights: Buffer | None = None
    busy: bool = False
    started: bool = False
    orphan: bool = False

    def ended(self) -> bool:
        # NEW 1, QUEUED 2, RUNNING 3, COMPLETED 4, ERROR 5, ABORT 6, SUBMITTED 7, TIMEOUT 8, NORESPONSE 9, ...
        state = int(self.run.state())
        return state >= 4 and state != 7

    def free(self) -> None:
        """The run has ended, or never began."""
        self.busy = self.started = self.orphan = False

    def give_up(self) -> None:
        """Nobody will collect this run: the slot stays taken until it has ended."""
        if self.started:
            self.orphan = True
        else:
            self.free()


class Slots:
    """The slots of one program. All but `shut` with the NPU's lock held."""

    def __init__(self, activations_bytes: int) -> None:
        self._size = activations_bytes
        self._slots: list[Slot] = []

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def take(self, context: Context, stats: NpuStats) -> Slot:
        """A slot of this context that nobody uses, made if there is none."""
        for slot in self._slots:
            if not slot.busy and slot.generation == context.generation:
                break
        else:
            slot = self._make(context, stats)
            self._slots.append(slot)
        slot.busy = True
        return slot

    def _make(self, context: Context, stats: NpuStats) -> Slot:
        activations = Buffer(context.device, self._size, context.activations_group, "the activations")
        activations.view[:] = 0  # what no op writes must be finite
        activations.to_device(stats)
        run = binding.load().run(context.kernel)
        run.set_arg(ARGUMENT_OPCODE, OPCODE)
        run.set_arg(ARGUMENT_ACTIVATIONS, activations.bo)
        return Slot(context.generation, activations, run)

    def reap(self, generation: int) -> None:
        """Free orphans whose runs have ended; forget slots of older contexts, unless they still run."""
        lifetime.release_ended()
        for slot in self._slots:
            if slot.orphan and slot.ended():
                slot.free()
        self._keep(lambda slot: slot.busy or slot.generation == generation)

    def forget_idle(self) -> None:
        self._keep(lambda slot: slot.busy)

    def _keep(self, wanted: Callable[[Slot], bool]) -> None:
        """Forget the others. Their runs are let go of here and now, since a traceback may hold the slot for longer."""
        for slot in self._slots:
            if not wanted(slot):
                slot.run = None
        self._slots[:] = [slot for slot in self._slots if wanted(slot)]

    def shut(self) -> None:
        """Drop all; a run that has not ended within a moment is kept until it has."""
        for slot in self._slots:
            if slot.started and wait.until(slot.ended, timeout=GRACE_S) is None:
                lifetime.keep_until(slot, slot.ended)
            else:
                slot.run = None
        self._slots.clear()
