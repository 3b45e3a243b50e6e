"""One lowered program on the NPU, and its runs.

A run: results marked, inputs packed in place and synced, started, waited for, its state checked (once for each of the
program's dispatches, one after another), outputs synced, marks looked for, outputs unpacked.

Clips of a batch alternate between two slots: while one runs, the next is packed and the last unpacked.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torch_xdna.devices.npu import binding, wait
from torch_xdna.devices.npu.buffers import Ranges
from torch_xdna.devices.npu.chip import Npu
from torch_xdna.devices.npu.context import ARGUMENT_CODE, ARGUMENT_WEIGHTS, ARGUMENT_WORDS, Context
from torch_xdna.devices.npu.errors import NpuError, NpuOff, RunFailed, translate
from torch_xdna.devices.npu.marks import Marks
from torch_xdna.devices.npu.slots import GRACE_S, Slot, Slots
from torch_xdna.devices.npu.stats import NpuStats
from torch_xdna.devices.npu.weights import Weights

PIPELINE = 2  # clips in flight
TRIES = 2

Clip = Sequence[np.ndarray]


def load(npu: Npu, program: Any) -> NpuProgram:
    """Make a lowering.Program runnable; nothing is sent before its first run. Raises lowering.errors.LackingError
    if the overlay was built without an op of it: its cores would never answer."""
    npu.variant.check(op.kind for op in getattr(program, "steps", ()))
    loaded = NpuProgram(npu, program)
    npu.lodge(loaded)
    return loaded


@dataclass
class _Attempt:
    """A clip on its way: started in `slot`, or about to be."""

    clip: Clip
    slot: Slot | None = None
    tries: int = 0

    def free(self) -> None:
        if self.slot is not None:
            self.slot.free()
            self.slot = None


class NpuProgram:
    """A lowering.Program that runs on the NPU. May be called from several threads at once."""

    def __init__(self, npu: Npu, program: Any) -> None:
        self.npu, self.program = npu, program
        self.stats = NpuStats()
        self.dispatches = [np.ascontiguousarray(words, np.uint32) for words in program.dispatches]
        self._inputs, self._results = Ranges(program.input_ranges), Ranges(program.result_ranges)
        self._marks = Marks(self._results, self._inputs)
        self._paces = [wait.Pace() for _ in self.dispatches]
        self._slots = Slots(program.activations_bytes)
        weakref.finalize(self, _retire, npu, id(self), self._slots)

    def upload(self, packed: np.ndarray) -> Weights:
        """Bring packed weights (uint8, as `Program.pack_weights` makes them) to the device, once for all
        runs."""
        return Weights(self.npu.context(), packed, self.stats)

    def run(self, clips: Sequence[Clip], weights: Weights) -> list[list[np.ndarray]]:
        """Run clips (each the region's inputs, fp32 matrices) and give each one's outputs back (fp32
        matrices).

        Raises NpuError if the NPU can't do it; a failed run is retried once on a new context before that.
        """
        outputs: list[list[np.ndarray]] = []
        pending: deque[_Attempt] = deque()

        def finish_first() -> None:
            outputs.append(self._finish(pending[0], weights))
            self.npu.places.release()
            pending.popleft()

        try:
            for clip in clips:
                if len(pending) == PIPELINE:
                    finish_first()
                if not self.npu.places.acquire(blocking=not pending):
                    # other threads hold the rest of the queue: waiting for them with a place in hand could
                    # deadlock
                    finish_first()
                    self.npu.places.acquire()
                pending.append(_Attempt(clip))
                self._begin(pending[-1], weights)
            while pending:
                finish_first()
        finally:
            for attempt in pending:  # only after an exception
                if attempt.slot is not None:
                    attempt.slot.give_up()
                self.npu.places.release()
        return outputs

    # ---- one attempt -------------------------------------------------------------------------------------

    def _begin(self, attempt: _Attempt, weights: Weights) -> None:
        """Start a clip. A failure to start is left for `_finish`, which knows about retries."""
        attempt.tries += 1
        generation = self.npu.generation
        try:
            with self.npu.lock:  # so that no other thread's failure closes the context meanwhile
                before = self.npu.stats.overlay_changes
                context = self.npu.context()
                generation = context.generation
                self.stats.overlay_changes += self.npu.stats.overlay_changes - before
                self.reap()
                slot = attempt.slot = self._slots.take(context, self.stats)
                self._bind(slot, context, weights)
            self._marks.put(slot.activations, self.stats)
            self.program.pack_inputs(attempt.clip, slot.activations.view)
            slot.activations.to_device(self.stats, self._inputs)
            self._start(slot)
        except RuntimeError as error:
            if isinstance(error, NpuError):
                raise
            attempt.free()
            self.npu.drop(generation, str(translate(error, "starting a run", RunFailed)))

    def _finish(self, attempt: _Attempt, weights: Weights) -> list[np.ndarray]:
        while True:
            try:
                if attempt.slot is None:
                    raise RunFailed(self.npu.last_failure or "the run could not be started")
                outputs = self._collect(attempt.slot, weights)
                attempt.free()
                return outputs
            except RunFailed as failure:
                self._failed(attempt, failure)
                self._retry(attempt, weights, failure)

    def _failed(self, attempt: _Attempt, failure: RunFailed) -> None:
        """Throw the run and its context away; after the last try raise the failure."""
        self.stats.failed_runs += 1
        slot = attempt.slot
        if slot is not None:
            slot.give_up()
            attempt.slot = None
            if slot.generation != self.npu.generation:
                attempt.tries -= 1  # it fell with another run, which counts the failure
            self.npu.drop(slot.generation, str(failure))
        if attempt.tries >= TRIES:
            self.npu.turn_off(f"{failure} (and so did the retry on a new context)")
            raise failure

    def _retry(self, attempt: _Attempt, weights: Weights, failure: RunFailed) -> None:
        try:
            self._begin(attempt, weights)
        except NpuOff:
            raise
        except NpuError as error:
            reason = f"{failure}; a new context could not be opened: {error}"
            self.npu.turn_off(reason)
            raise RunFailed(reason) from error

    def _start(self, slot: Slot) -> None:
        slot.started = True
        slot.run.start()
        self.stats.dispatches += 1

    def _collect(self, slot: Slot, weights: Weights) -> list[np.ndarray]:
        """Wait for the end of the dispatch under way, check it, do the others; read the outputs."""
        self._await(slot, 0)
        for part in range(1, len(self.dispatches)):
            try:
                with self.npu.lock:
                    if slot.generation != self.npu.generation:
                        raise RunFailed("the context of this run was lost to the failure of another run")
                    self._bind(slot, self.npu.context(), weights, part)
                    self._start(slot)
            except RuntimeError as error:
                slot.started = False  # its last run has ended
                if isinstance(error, NpuError):
                    raise
                raise RunFailed(str(translate(error, "starting a run", RunFailed))) from error
            self._await(slot, part)
        try:
            slot.activations.from_device(self.stats, self._results)
        except RuntimeError as error:
            raise RunFailed(str(translate(error, "reading the outputs", RunFailed))) from error
        if untouched := self._marks.untouched(slot.activations):
            blocks = f"{untouched} of {len(self._marks)} output blocks"
            raise RunFailed(f"the NPU reported success but left {blocks} as they were")
        return self.program.unpack_outputs(slot.activations.view)

    def _await(self, slot: Slot, part: int) -> None:
        """Wait for a dispatch's end; raises RunFailed unless it ended well."""
        lost = slot.generation != self.npu.generation
        timeout = GRACE_S if lost else self.npu.run_timeout
        seconds = wait.until(slot.ended, timeout=timeout, pace=self._paces[part])
        if seconds is None:
            raise RunFailed(f"no answer from the NPU within {timeout:g} s")
        self.stats.seconds_waited += seconds
        state = slot.run.state()
        if state != binding.load().ert_cmd_state.ERT_CMD_STATE_COMPLETED:
            raise RunFailed(f"the NPU ended the run in state {state.name.removeprefix('ERT_CMD_STATE_')}")
        if slot.generation != self.npu.generation:
            raise RunFailed("the context of this run was lost to the failure of another run")

    def _bind(self, slot: Slot, context: Context, weights: Weights, part: int = 0) -> None:
        words = self.dispatches[part]
        code = self.npu.code(context, (id(self), part), words)
        if slot.code is not code:
            slot.run.set_arg(ARGUMENT_CODE, code.bo)
            slot.run.set_arg(ARGUMENT_WORDS, words.size)
            slot.code = code
        buffer = weights.on(context, self.stats)
        if slot.weights is not buffer:
            slot.run.set_arg(ARGUMENT_WEIGHTS, buffer.bo)
            slot.weights = buffer

    def reap(self) -> None:
        """Let go of runs that ended when nobody waited for them."""
        self._slots.reap(self.npu.generation)

    # ---- the ends of things ------------------------------------------------------------------------------

    def release_idle(self, owner: int) -> None:
        """Let go of an instruction buffer that makes room for another's, if this program owns it and
        rests."""
        if owner == id(self):
            self._slots.forget_idle()

    def stuck(self) -> int:
        """How many runs nobody waits for any more, and which have not ended."""
        return sum(slot.orphan for slot in self._slots)

    def owned(self) -> list[Slot]:
        """The slots, whose runs a forked child must keep."""
        return list(self._slots)

    def shut(self) -> None:
        self._slots.shut()

    def __deepcopy__(self, memo: dict) -> NpuProgram:
        return self  # the words are immutable and runs don't share slots

    def __reduce__(self) -> Any:
        raise TypeError(
            "a program loaded on the NPU belongs to this process and can't be pickled; save the model's "
            "state_dict "
            "and compile it again where it is loaded"
        )


def _retire(npu: Npu, key: int, slots: Slots) -> None:
    npu.forget(key)
    slots.shut()
