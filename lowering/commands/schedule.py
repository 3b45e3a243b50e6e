"""Streams of all steps -> one list of commands that never deadlocks and never breaks a dependency.

Each shim channel executes its tasks in order, at most four pushed and not yet waited for. Every task issues a
token and every token is waited for once, so a waited task has completed: only then are its descriptor used
again, its results read or its sources overwritten.

Why it can't deadlock: every task has a logical time, the first and last trip of the cores that touch it. When
nothing can be pushed, the controller waits for the outstanding task with the earliest last trip. All tasks
that this one needs start no later. Such a task could be unpushed only because its queue is full of earlier
tasks, or because it depends on results of an earlier step; in both cases an outstanding task with an earlier
end exists, which contradicts the choice.

Before a channel's first task its tokens get their id, without which they would not reach the controller.

Tasks are pushed as soon as queue and dependencies allow, earliest first trip first. So headers and weights of
the next step wait in their queues while the current one runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_xdna.lowering import limits
from torch_xdna.lowering.buffers import ACTIVATIONS, Buffer
from torch_xdna.lowering.commands.commands import Command, Dma, Wait, token_id
from torch_xdna.lowering.commands.registers import MM2S, S2MM
from torch_xdna.lowering.host_data.blocks import BLOCK_WORDS
from torch_xdna.lowering.streams.descriptors import Transfer, fit
from torch_xdna.lowering.streams.step_streams import PATHS, StepStreams

CHANNELS = {"A": (MM2S, 0), "B": (MM2S, 1), "C": (S2MM, 0)}
QUEUE = limits.SHIM_QUEUE.maximum
NEVER = float("inf")
assert len(PATHS) * QUEUE <= limits.SHIM_LIVE.maximum


@dataclass
class _Task:
    step: int
    first: float  # logical time at which the cores first need it
    last: float  # logical time after which it has completed
    needs: list[tuple[int, int]]  # (channel, number of tasks of it that must have completed)
    arg: int
    transfer: Transfer
    label: str


@dataclass(frozen=True)
class Scheduled:
    """`commands`, and per command the step it belongs to (waits: that of the task waited for)."""

    commands: list[Command]
    steps: list[int]


def schedule(all_streams: Sequence[StepStreams], names: Sequence[str], columns: int) -> Scheduled:
    """Order the transfers of all steps. `names` label them."""
    queues = _tasks(all_streams, names, columns)
    commands: list[Command] = []
    steps: list[int] = []
    pushed = [0] * len(queues)
    done = [0] * len(queues)
    channels = range(len(queues))
    ready = [_ready(queues[c], 0, 0, done) for c in channels]
    while True:
        channel = min(channels, key=ready.__getitem__)
        if ready[channel] < NEVER:
            task = queues[channel][pushed[channel]]
            if not pushed[channel]:
                commands.append(token_id(*_channel(channel)))
                steps.append(task.step)
            commands.append(_dma(task, channel, pushed[channel]))
            pushed[channel] += 1
            ready[channel] = _ready(queues[channel], pushed[channel], done[channel], done)
        else:
            outstanding = [c for c in channels if done[c] < pushed[c]]
            if not outstanding:
                break
            channel = min(outstanding, key=lambda c: queues[c][done[c]].last)
            task = queues[channel][done[channel]]
            commands.append(Wait(*_channel(channel)))
            done[channel] += 1
            ready = [_ready(queues[c], pushed[c], done[c], done) for c in channels]
        steps.append(task.step)
    assert all(done[c] == len(queues[c]) for c in channels), "a task was never pushed"
    return Scheduled(commands, steps)


def _ready(queue: list[_Task], pushed: int, completed: int, done: list[int]) -> float:
    """When the channel's next task is first needed, if it can be pushed now; else `NEVER`."""
    if pushed == len(queue) or pushed - completed == QUEUE:
        return NEVER
    task = queue[pushed]
    for channel, count in task.needs:
        if done[channel] < count:
            return NEVER
    return task.first


def _channel(channel: int) -> tuple[int, str, int]:
    """(column, direction, number) of a channel."""
    column, path = divmod(channel, len(PATHS))
    return column, *CHANNELS[PATHS[path]]


def _dma(task: _Task, channel: int, index: int) -> Dma:
    transfer = task.transfer
    return Dma(
        *_channel(channel),
        QUEUE * (channel % len(PATHS)) + index % QUEUE,  # free: the task four before has been waited for
        task.arg,
        transfer.offset,
        transfer.sizes,
        transfer.strides,
        4,
        True,
        task.label,
    )


def _tasks(all_streams: Sequence[StepStreams], names: Sequence[str], columns: int) -> list[list[_Task]]:
    """Per channel (3 * column + path) its tasks, with logical times and dependencies."""
    queues: list[list[_Task]] = [[] for _ in range(columns * len(PATHS))]
    memory = _Memory()
    begin = 0.0
    for index, streams in enumerate(all_streams):
        touched: dict[Buffer, dict[int, int]] = {}
        written: dict[Buffer, dict[int, int]] = {}
        for column in range(columns):
            for path_number, path in enumerate(PATHS):
                channel = column * len(PATHS) + path_number
                queue = queues[channel]
                position = -streams.prologue * BLOCK_WORDS if path == "A" else 0
                per_trip = streams.per_trip(path)
                for access in streams.by_path[column, path]:
                    buffers = [access.buffer] + ([access.also] if access.also else [])
                    before = memory.before_write if path == "C" else memory.before_read
                    needs = [need for buffer in buffers for need in before(buffer)]
                    base = access.buffer.offset * BLOCK_WORDS
                    label = f"{names[index]} {path} {' + '.join(buffer.name for buffer in buffers)}"
                    for transfer in fit(access.pattern):
                        end = position + transfer.words
                        first, last = _trips(position, end, per_trip)
                        # Outputs are asked for after their trip's inputs, and complete after them.
                        shift = begin + (0.5 if path == "C" else 0.0)
                        transfer = Transfer(base + transfer.offset, transfer.sizes, transfer.strides)
                        task = _Task(
                            index, first + shift, last + shift, needs, access.buffer.arg, transfer, label
                        )
                        queue.append(task)
                        position = end
                    for buffer in buffers:
                        if buffer.arg == ACTIVATIONS:
                            touched.setdefault(buffer, {})[channel] = len(queue)
                            if path == "C":
                                written.setdefault(buffer, {})[channel] = len(queue)
        memory.after_step(touched, written)
        begin += streams.trips
    return queues


def _trips(start: int, end: int, per_trip: int) -> tuple[int, int]:
    """First and last trip of the words [start, end) of a stream; a prologue counts to the first trip."""
    if not per_trip:
        return 0, 0
    return max(start, 0) // per_trip, max(end - 1, 0) // per_trip


class _Memory:
    """Which tasks must complete before a buffer may be read or overwritten."""

    def __init__(self) -> None:
        self.history: list[tuple[Buffer, dict[int, int]]] = []  # every buffer touched, last task per channel
        self.writers: dict[Buffer, dict[int, int]] = {}
        self.before_writes: dict[Buffer, list[tuple[int, int]]] = {}  # of the current step

    def before_read(self, buffer: Buffer) -> list[tuple[int, int]]:
        """The tasks that wrote it (none: the host did)."""
        return list(self.writers.get(buffer, {}).items())

    def before_write(self, buffer: Buffer) -> list[tuple[int, int]]:
        """The tasks of earlier steps that touched overlapping memory."""
        if buffer in self.before_writes:
            return self.before_writes[buffer]
        needs: dict[int, int] = {}
        end = buffer.offset + buffer.blocks
        for other, tasks in self.history:
            if other.offset < end and buffer.offset < other.offset + other.blocks:
                for channel, count in tasks.items():
                    needs[channel] = max(count, needs.get(channel, 0))
        self.before_writes[buffer] = list(needs.items())
        return self.before_writes[buffer]

    def after_step(
        self, touched: dict[Buffer, dict[int, int]], written: dict[Buffer, dict[int, int]]
    ) -> None:
        """Note a step's tasks: per buffer and channel the number of tasks up to the last one."""
        self.before_writes.clear()
        for buffer, tasks in touched.items():
            self.history.append((buffer, tasks))
        for buffer, tasks in written.items():
            self.writers.setdefault(buffer, {}).update(tasks)
