"""One lowered program on the NPU: its slots (activations and a run each), its weights, and the run itself.

A run: inputs packed in place, inputs synced, started, waited for, its state checked, outputs synced and
unpacked. Clips of a batch alternate between two slots: while one runs, the next is packed and the last
unpacked.

Every block of results carries a mark of NaNs before a run, so that a run which ends COMPLETED without having
written it is noticed. A mark is one cache line: whole blocks would be written, synced and searched for most of
the cost of a call. (One mark per row of blocks would save 0.2 ms of a whisper-base call, and miss half-written rows.)
"""

from __future__ import annotations

import functools
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowering.limits import BLOCK_BYTES
from torch_xdna.devices.npu import binding, lifetime, wait
from torch_xdna.devices.npu.context import (
    ARGUMENT_ACTIVATIONS,
    ARGUMENT_CODE,
    ARGUMENT_OPCODE,
    ARGUMENT_WEIGHTS,
    ARGUMENT_WORDS,
    OPCODE,
    Context,
)
from torch_xdna.devices.npu.errors import NpuError, NpuMemory, NpuOff, RunFailed, translate
from torch_xdna.devices.npu.memory import Buffer, Range, Ranges
from torch_xdna.devices.npu.process import Npu
from torch_xdna.devices.npu.stats import NpuStats

POISON = 0xFF  # 0xFFFF is a bf16 NaN that rounding never produces
CACHE_LINE = 64  # bytes
STRIPE = 2048  # bytes of a block that one core writes in a row op
PIPELINE = 2  # clips in flight
TRIES = 2
GRACE_S = (
    0.5  # for runs that lost their context: they are thrown away, but dropping one that still runs is fatal
)

Clip = Sequence[np.ndarray]


@dataclass
class Slot:
    """Buffers and run object for one run at a time. `busy` while somebody owns it; an orphan's owner left
    while its run was still going."""

    generation: int
    activations: Buffer
    run: Any
    code: Buffer | None = None
    weights: Buffer | None = None
    busy: bool = False
    started: bool = False
    orphan: bool = False


def _ended(slot: Slot) -> bool:
    # NEW 1, QUEUED 2, RUNNING 3, COMPLETED 4, ERROR 5, ABORT 6, SUBMITTED 7, TIMEOUT 8, NORESPONSE 9, ...
    state = int(slot.run.state())
    return state >= 4 and state != 7


class Weights:
    """One set of packed weights on the device. After the context was rebuilt they move to a buffer of the new
    one; a checksum makes sure that the failed run did not write into them."""

    def __init__(self, context: Context, packed: np.ndarray, stats: NpuStats) -> None:
        self.size = packed.nbytes
        self._checksum = zlib.crc32(packed.data)
        self._generation = context.generation
        self._buffer = self._place(context, packed, stats)

    def on(self, context: Context, stats: NpuStats) -> Buffer:
        if context.generation != self._generation:
            if zlib.crc32(self._buffer.view.data) != self._checksum:
                raise NpuMemory("a failed run damaged the model's weights in memory; compile the model again")
            self._buffer = self._place(context, self._buffer.view, stats)
            self._generation = context.generation
        return self._buffer

    @staticmethod
    def _place(context: Context, packed: np.ndarray, stats: NpuStats) -> Buffer:
        buffer = Buffer(context.device, packed.nbytes, context.weights_group, "the weights")
        buffer.fill(packed)
        buffer.to_device(stats)
        return buffer


@dataclass
class _Attempt:
    """A clip on its way: started in `slot`, or about to be."""

    clip: Clip
    slot: Slot | None = None
    tries: int = 0


class NpuProgram:
    """A lowering.Program that runs on the NPU. May be called from several threads at once."""

    def __init__(self, npu: Npu, program: Any) -> None:
        self.npu, self.program = npu, program
        self.stats = NpuStats()
        self.words = np.ascontiguousarray(program.words, np.uint32)
        self._inputs, self._results = Ranges(program.input_ranges), Ranges(program.result_ranges)
        self._marks = _marks(self._results.parts, self._inputs.parts)
        self._marked = Ranges((int(line[0]), CACHE_LINE) for line in self._marks)
        self._pace = wait.Pace()
        self._slots: list[Slot] = []
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
                self._give_up(attempt)
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
                slot = self._take_slot(attempt, context)
                self._bind(slot, context, weights)
            self._mark(slot.activations)
            self.program.pack_inputs(attempt.clip, slot.activations.view)
            slot.activations.to_device(self.stats, self._inputs)
            slot.started = True
            slot.run.start()
            self.stats.dispatches += 1
        except RuntimeError as error:
            if isinstance(error, NpuError):
                raise
            self._free(attempt)
            self.npu.drop(generation, str(translate(error, "starting a run", RunFailed)))

    def _finish(self, attempt: _Attempt, weights: Weights) -> list[np.ndarray]:
        while True:
            try:
                if attempt.slot is None:
                    raise RunFailed(self.npu.last_failure or "the run could not be started")
                outputs = self._collect(attempt.slot)
                self._free(attempt)
                return outputs
            except RunFailed as failure:
                self._failed(attempt, failure)
                self._retry(attempt, weights, failure)

    def _failed(self, attempt: _Attempt, failure: RunFailed) -> None:
        """Throw the run and its context away; after the last try raise the failure."""
        self.stats.failed_runs += 1
        slot = attempt.slot
        if slot is not None:
            self._give_up(attempt)
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

    def _collect(self, slot: Slot) -> list[np.ndarray]:
        """Wait for a run's end, check it, read its outputs."""
        lost = slot.generation != self.npu.generation
        timeout = GRACE_S if lost else self.npu.run_timeout
        seconds = wait.until(functools.partial(_ended, slot), timeout=timeout, pace=self._pace)
        if seconds is None:
            raise RunFailed(f"no answer from the NPU within {timeout:g} s")
        self.stats.seconds_waited += seconds
        state = slot.run.state()
        if state != binding.load().ert_cmd_state.ERT_CMD_STATE_COMPLETED:
            raise RunFailed(f"the NPU ended the run in state {state.name.removeprefix('ERT_CMD_STATE_')}")
        if slot.generation != self.npu.generation:
            raise RunFailed("the context of this run was lost to the failure of another run")
        try:
            slot.activations.from_device(self.stats, self._results)
        except RuntimeError as error:
            raise RunFailed(str(translate(error, "reading the outputs", RunFailed))) from error
        self._check_written(slot.activations.view)
        return self.program.unpack_outputs(slot.activations.view)

    def _mark(self, activations: Buffer) -> None:
        """Put a mark into every block of results, and on the device's side of the caches."""
        activations.view[self._marks] = POISON
        activations.to_device(self.stats, self._marked)

    def _check_written(self, activations: np.ndarray) -> None:
        """A block whose mark is still there was not written."""
        untouched = int((activations[self._marks] == POISON).all(axis=1).sum())
        if untouched:
            raise RunFailed(
                f"the NPU reported success but left {untouched} of {len(self._marks)} output blocks as they "
                "were"
            )

    # ---- slots, with the lock held -----------------------------------------------------------------------

    def _take_slot(self, attempt: _Attempt, context: Context) -> Slot:
        self.reap()
        for slot in self._slots:
            if not slot.busy and slot.generation == context.generation:
                break
        else:
            slot = self._new_slot(context)
            self._slots.append(slot)
        slot.busy = True
        attempt.slot = slot
        return slot

    def _new_slot(self, context: Context) -> Slot:
        size = self.program.activations_bytes
        activations = Buffer(context.device, size, context.activations_group, "the activations")
        activations.view[:] = 0  # what no op writes must be finite
        activations.to_device(self.stats)
        run = binding.load().run(context.kernel)
        run.set_arg(ARGUMENT_OPCODE, OPCODE)
        run.set_arg(ARGUMENT_WORDS, self.words.size)
        run.set_arg(ARGUMENT_ACTIVATIONS, activations.bo)
        return Slot(context.generation, activations, run)

    def _bind(self, slot: Slot, context: Context, weights: Weights) -> None:
        code = self.npu.code(context, id(self), self.words)
        if slot.code is not code:
            slot.run.set_arg(ARGUMENT_CODE, code.bo)
            slot.code = code
        buffer = weights.on(context, self.stats)
        if slot.weights is not buffer:
            slot.run.set_arg(ARGUMENT_WEIGHTS, buffer.bo)
            slot.weights = buffer

    def _free(self, attempt: _Attempt) -> None:
        """The run has ended, or never began."""
        if attempt.slot is not None:
            attempt.slot.busy = attempt.slot.started = False
            attempt.slot = None

    def _give_up(self, attempt: _Attempt) -> None:
        """Nobody will collect this run: its slot stays taken until the run has ended."""
        if attempt.slot is not None and attempt.slot.started:
            attempt.slot.orphan = True
        else:
            self._free(attempt)

    def reap(self) -> None:
        """Free orphans whose runs have ended; forget slots of older contexts, unless they still run."""
        lifetime.release_ended()
        for slot in self._slots:
            if slot.orphan and _ended(slot):
                slot.busy = slot.started = slot.orphan = False
        generation = self.npu.generation
        self._keep(lambda slot: slot.busy or slot.generation == generation)

    def _keep(self, wanted: Callable[[Slot], bool]) -> None:
        """Forget the other slots. Their runs are let go of here and now: each holds a hardware context, and a
        traceback may hold the slot for longer."""
        for slot in self._slots:
            if not wanted(slot):
                slot.run = None
        self._slots[:] = [slot for slot in self._slots if wanted(slot)]

    # ---- the ends of things ------------------------------------------------------------------------------

    def release_idle(self, key: int) -> None:
        """Let go of an instruction buffer that makes room for another's, if this program owns it and
        rests."""
        if key == id(self):
            self._keep(lambda slot: slot.busy)

    def stuck(self) -> int:
        """How many runs nobody waits for any more, and which have not ended."""
        return sum(slot.orphan for slot in self._slots)

    def owned(self) -> list[Slot]:
        """The slots, whose runs a forked child must keep."""
        return list(self._slots)

    def shut(self) -> None:
        _retire_slots(self._slots)

    def __deepcopy__(self, memo: dict) -> NpuProgram:
        return self  # the words are immutable and runs don't share slots

    def __reduce__(self) -> Any:
        raise TypeError(
            "a program loaded on the NPU belongs to this process and can't be pickled; save the model's "
            "state_dict "
            "and compile it again where it is loaded"
        )


def _marks(results: list[Range], inputs: Sequence[Range]) -> np.ndarray:
    """Byte indices (blocks, 64) of one cache line per block of results, in another core's stripe from block
    to block. A result that lies in an input can't be told from it and has no mark."""
    blocks = [
        o
        for offset, size in results
        for o in range(offset, offset + size, BLOCK_BYTES)
        if not any(start <= o < start + length for start, length in inputs)
    ]
    lines = np.array(blocks, np.int64) + np.arange(len(blocks)) % (BLOCK_BYTES // STRIPE) * STRIPE
    return lines[:, None] + np.arange(CACHE_LINE)


def _retire(npu: Npu, key: int, slots: list[Slot]) -> None:
    npu.forget(key)
    _retire_slots(slots)


def _retire_slots(slots: list[Slot]) -> None:
    """Drop slots; a run that has not ended within a moment is kept until it has, dropping it would abort the
    process."""
    for slot in slots:
        ended = functools.partial(_ended, slot)
        if slot.started and wait.until(ended, timeout=GRACE_S) is None:
            lifetime.keep_until(slot, ended)
        else:
            slot.run = None
    slots.clear()
