"""The shims: descriptors, task queues and the two kinds of channel between device memory and the array.

What a program may rely on is decided by what its instruction stream can know, never by the simulated clock. A
task is *known to be complete* when a token of it (or of a later task of its channel) was waited for, or when
a result that was waited for can't exist without it: every C object carries how many A and B objects its core
had received before. The queue's depth, the reuse of descriptors and the order of writes and reads are checked
against that, so a program that works only because something happens to be quick is refused at any clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from torch_xdna.devices.array.arguments import Argument, Cursor, overlap
from torch_xdna.devices.array.context import Context
from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.devices.array.fabric import Join, Store
from torch_xdna.devices.array.transfer import Transfer, parse
from torch_xdna.lowering import limits

MM2S, S2MM = "MM2S", "S2MM"
DESCRIPTORS = limits.SHIM_DESCRIPTOR.maximum + 1


class Task:
    """One push of a descriptor on a channel."""

    __slots__ = (
        "argument",
        "bd",
        "command",
        "cursor",
        "done",
        "end",
        "left",
        "per_word",
        "received",
        "token",
        "transfer",
        "where",
    )

    def __init__(
        self, command: int, bd: int, token: bool, argument: Argument, transfer: Transfer, where: str
    ):
        self.command, self.bd, self.token = command, bd, token
        self.argument, self.transfer, self.where = argument, transfer, where
        self.left = transfer.words
        self.end = 0  # words of the channel up to and with this task
        self.done = False
        self.received: list[tuple[int, int]] = []  # S2MM: what the cores had received before the last object
        self.cursor: Cursor | None = None
        self.per_word = 0.0


class Bus:
    """The device memory as all channels of one direction share it: first come, first served."""

    def __init__(self) -> None:
        self.free = 0.0

    def take(self, start: float, memory_cycles: float, stream_cycles: float) -> float:
        """The moment at which a transfer ends that may begin at `start`: the slower of memory and stream."""
        self.free = max(self.free, start) + memory_cycles
        return max(self.free, start + stream_cycles)


class Channel:
    """Common to both directions: the queue, tokens, and what is known of the tasks."""

    def __init__(
        self, context: Context, bus: Bus, column: int, direction: str, number: int, store: Store | Join
    ):
        self.context, self.bus = context, bus
        self.column, self.direction, self.number = column, direction, number
        self.name = f"column {column} {direction} {number}"
        self.store = store
        self.object_words = store.object_words
        store.feed = self.feed
        self.queue: deque[Task] = deque()  # not done
        self.unknown: deque[Task] = deque()  # not known to be complete
        self.unclaimed: deque[Task] = deque()  # their token was not waited for
        self.position = 0  # words of the current object that have moved
        self.words = 0  # pushed in all
        self.busy = self.started = False
        self.waiter: Callable[[], None] | None = None

    def push(self, task: Task) -> None:
        self.words += task.transfer.words
        task.end = self.words
        task.per_word = self.memory_cycles(4 * task.transfer.runs()[1])
        self.queue.append(task)
        self.unknown.append(task)
        if task.token:
            self.unclaimed.append(task)
        self.feed()

    def feed(self) -> None:
        """Start moving the next piece if there is a task, and room or an object."""
        if self.busy or not self.queue or not self.ready():
            return
        self.busy = True
        task = self.queue[0]
        start = 0.0
        if task.cursor is None:
            task.cursor = Cursor(task.argument, task.transfer)
            start = self.start_next if self.started else self.start_cold
            self.started = True
        words = min(self.object_words - self.position, task.left)
        now = self.context.engine.now
        end = self.bus.take(now + start, words * task.per_word, words * self.per_word)
        self.context.engine.after(end - now, self.moved, (words, now))

    # What the directions differ in: cycles of a task's start and of a word on the stream, and the methods
    # below.
    bus: Bus
    start_cold: float
    start_next: float
    per_word: float

    def ready(self) -> bool:
        """Whether the memtile has room (reads) or a whole object (writes)."""
        raise NotImplementedError

    def buffer(self) -> int:
        """Address of the memtile's current object."""
        raise NotImplementedError

    def memory_cycles(self, run_bytes: int) -> float:
        """Cycles for which a word occupies the memory, by contiguous run."""
        raise NotImplementedError

    def moved(self, piece: tuple[int, float]) -> None:
        words, start = piece
        task = self.queue[0]
        assert task.cursor is not None
        task.cursor.move(self.buffer() + 4 * self.position, words, self.direction == S2MM)
        self.context.moved_words += words
        task.left -= words
        self.position += words
        self.busy = False
        self.note(task)
        if self.context.trace is not None:
            self.context.trace.add(self.name, task.where, start, self.context.engine.now)
        if self.position == self.object_words:
            self.position = 0
            self.store.complete()
        if not task.left:
            self.queue.popleft()
            task.done = True
            if self.waiter is not None and task.token:
                waiter, self.waiter = self.waiter, None
                waiter()
        self.feed()

    def note(self, task: Task) -> None:
        """Before an object's end: remember what its existence proves."""

    def learn(self, task: Task) -> None:
        """The instruction stream knows that `task` and all earlier ones are complete."""
        while self.unknown and self.unknown[0].end <= task.end:
            self.forget(self.unknown.popleft())

    def forget(self, task: Task) -> None:
        """Called once per task when it becomes known to be complete."""


class ReadChannel(Channel):
    """MM2S: device memory to a memtile."""

    store: Store

    def __init__(self, context: Context, bus: Bus, column: int, number: int, store: Store):
        super().__init__(context, bus, column, MM2S, number, store)
        costs = context.costs
        self.start_cold, self.start_next = costs.mm2s_start_cold, costs.mm2s_start_next
        self.per_word = costs.mm2s_word

    def memory_cycles(self, run_bytes: int) -> float:
        return 4 * self.context.costs.read_cycles(run_bytes, run_bytes) / run_bytes

    def ready(self) -> bool:
        return self.position > 0 or self.store.room()

    def buffer(self) -> int:
        return self.store.incoming()

    def learn_objects(self, count: int) -> None:
        """A core is known to have received `count` objects of this channel."""
        words = count * self.object_words
        while self.unknown and self.unknown[0].end <= words:
            self.unknown.popleft()


class WriteChannel(Channel):
    """S2MM: a memtile to device memory."""

    store: Join

    def __init__(self, context: Context, bus: Bus, column: int, number: int, store: Join):
        super().__init__(context, bus, column, S2MM, number, store)
        costs = context.costs
        self.start_cold, self.start_next = costs.s2mm_start_cold, costs.s2mm_start_next
        self.per_word = costs.s2mm_word

    def memory_cycles(self, run_bytes: int) -> float:
        return self.context.costs.write_cycles(4)

    def ready(self) -> bool:
        return self.store.available()

    def buffer(self) -> int:
        return self.store.outgoing()

    def note(self, task: Task) -> None:
        task.received = self.store.knowledge()

    def forget(self, task: Task) -> None:
        task.argument.end_write(task.transfer)


class Shim:
    """The descriptors and channels of one column."""

    def __init__(self, column: int, channels: dict[tuple[str, int], Channel]):
        self.column = column
        self.channels = channels
        self.registers = [[0] * 8 for _ in range(DESCRIPTORS)]
        self.patched: list[tuple[int, int] | None] = [None] * DESCRIPTORS

    def _in_flight(self, bd: int) -> Task | None:
        return next((t for c in self.channels.values() for t in c.unknown if t.bd == bd), None)

    def check_free(self, bd: int, where: str) -> None:
        task = self._in_flight(bd)
        if task is not None:
            state = "is in flight" if not task.done else "is not known to be complete: nobody waited for it"
            raise HardwareFault("descriptor", f"{where} rewrites descriptor {bd}, but {task.where} {state}")

    def write(self, bd: int, first: int, words: tuple[int, ...], where: str) -> None:
        self.check_free(bd, where)
        self.registers[bd][first : first + len(words)] = words
        if first <= 1 < first + len(words):
            self.patched[bd] = None

    def patch(self, bd: int, arg: int, offset: int, where: str) -> None:
        self.check_free(bd, where)
        self.patched[bd] = (arg, offset)

    def push(
        self, channel: Channel, value: int, command: int, arguments: list[Argument], others: list[Channel]
    ) -> None:
        """A write to a channel's task queue. `others`: all channels of the array."""
        bd, repeats, token = value & 0xF, (value >> 16 & 0xFF) + 1, bool(value >> 31)
        where = f"command {command} ({channel.name}, descriptor {bd})"
        if value & ~(1 << 31 | 0xFF << 16 | 0xF):
            raise HardwareFault("register", f"{where} pushes {value:#010x}, which has reserved bits")
        if len(channel.unknown) >= limits.SHIM_QUEUE.maximum:
            waiting = ", ".join(str(t.command) for t in channel.unknown)
            raise HardwareFault(
                "queue",
                f"{where} is the fifth task on a queue of {limits.SHIM_QUEUE.maximum}: "
                f"commands {waiting} are not known to be complete",
            )
        live = {t.bd for c in self.channels.values() for t in c.unknown} | {bd}
        if len(live) > limits.SHIM_LIVE.maximum:
            raise HardwareFault(
                "live", f"{where} makes {len(live)} live descriptors, {limits.SHIM_LIVE.maximum} are safe"
            )
        patched = self.patched[bd]
        if patched is None:
            raise HardwareFault(
                "descriptor", f"{where} has no address: it was not patched since it was written"
            )
        if patched[0] >= len(arguments):
            raise HardwareFault("address", f"{where} uses argument {patched[0]}, there are {len(arguments)}")
        argument = arguments[patched[0]]
        transfer, self.registers[bd][6] = parse(self.registers[bd], patched[1], repeats, where)
        argument.check_inside(transfer, where)
        if channel.direction == MM2S:
            argument.check_settled(transfer, where, lambda: _writers(argument, transfer, others))
        else:
            self._check_write(argument, transfer, where, others)
        channel.push(Task(command, bd, token, argument, transfer, where))

    def _check_write(self, argument: Argument, transfer: Transfer, where: str, others: list[Channel]) -> None:
        for task in _conflicts(argument, transfer, others, MM2S):
            raise HardwareFault(
                "write", f"{where} writes memory that {task.where} reads: nobody waited for that"
            )
        argument.begin_write(transfer, bool(_conflicts(argument, transfer, others, S2MM)))


def _writers(argument: Argument, transfer: Transfer, channels: list[Channel]) -> str:
    return ", ".join(task.where for task in _conflicts(argument, transfer, channels, S2MM))


def _conflicts(argument: Argument, transfer: Transfer, channels: list[Channel], direction: str) -> list[Task]:
    """Tasks of one direction, not known to be complete, that touch memory of `transfer`."""
    return [
        task
        for channel in channels
        if channel.direction == direction
        for task in channel.unknown
        if task.argument is argument and overlap(task.transfer, transfer)
    ]
