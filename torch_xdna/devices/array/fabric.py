"""Streams and buffers between the shims and the cores, one object at a time.

Every object is stored whole before it goes on, as object FIFOs do: a memtile passes an object on when it has
all of it and when every receiver has a free buffer. Buffers are real memory at fixed addresses, so what a
kernel leaves in one is what the next one finds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from torch_xdna.devices.array.context import Context
from torch_xdna.devices.array.errors import HardwareFault

WORD = 4


class Memory:
    """`count` buffers of `size` bytes each, 64-byte aligned; zero at power-up."""

    __slots__ = ("addresses", "data", "size")

    def __init__(self, count: int, size: int):
        self.data = np.zeros(count * size + 64, dtype=np.uint8)
        start = -(-self.data.__array_interface__["data"][0] // 64) * 64
        self.size = size
        self.addresses = [start + i * size for i in range(count)]


class InPort:
    """A core's end of a broadcast: filled by its sender, emptied by the core."""

    __slots__ = (
        "addresses",
        "depth",
        "filled",
        "head",
        "memory",
        "name",
        "released",
        "sender",
        "tail",
        "waiter",
        "want",
    )

    def __init__(self, name: str, depth: int, size: int):
        self.name = name
        self.depth = depth
        self.memory = Memory(depth, size)
        self.addresses = self.memory.addresses
        self.filled = self.head = self.tail = self.released = self.want = 0
        self.waiter: Callable[[Any], None] | None = None
        self.sender: Broadcast

    def release(self, count: int) -> None:
        if count > self.filled:
            raise HardwareFault(
                "release", f"a core gives back {count} objects of {self.name} and holds {self.filled}"
            )
        self.filled -= count
        self.released += count
        self.tail = (self.tail + count) % self.depth
        self.sender.send()

    def deliver(self, address: int, size: int) -> None:
        ctypes.memmove(self.addresses[self.head], address, size)
        self.head = (self.head + 1) % self.depth
        self.filled += 1


class Store:
    """A memtile FIFO fed by a shim; each of `parts` leaves by its own sender."""

    __slots__ = ("addresses", "arrived", "depth", "feed", "memory", "name", "object_words", "senders")

    def __init__(self, name: str, depth: int, size: int):
        self.name = name
        self.depth = depth
        self.object_words = size // WORD
        self.memory = Memory(depth, size)
        self.addresses = self.memory.addresses
        self.arrived = 0  # whole objects
        self.senders: list[Broadcast] = []
        self.feed: Callable[[], None]  # the shim channel's: there may be room again

    def room(self) -> bool:
        return self.arrived - min(s.sent for s in self.senders) < self.depth

    def incoming(self) -> int:
        """Address of the buffer that is being filled."""
        return self.addresses[self.arrived % self.depth]

    def complete(self) -> None:
        self.arrived += 1
        for sender in self.senders:
            sender.send()


class Broadcast:
    """Sends its part of a store's objects to all its ports at once."""

    __slots__ = ("busy", "context", "cycles", "name", "offset", "ports", "sent", "size", "store")

    def __init__(
        self, context: Context, name: str, store: Store, offset: int, size: int, ports: list[InPort]
    ):
        self.context, self.name, self.store = context, name, store
        self.offset, self.size, self.ports = offset, size, ports
        self.cycles = context.costs.stream_cycles(size)
        self.sent = 0
        self.busy = False
        store.senders.append(self)
        for port in ports:
            port.sender = self

    def send(self) -> None:
        if self.busy or self.sent == self.store.arrived:
            return
        for port in self.ports:
            if port.filled == port.depth:
                return
        self.busy = True
        self.context.engine.after(self.cycles, self.done)

    def done(self, _: Any) -> None:
        store, context = self.store, self.context
        address = store.addresses[self.sent % store.depth] + self.offset
        for port in self.ports:
            port.deliver(address, self.size)
        self.busy = False
        self.sent += 1
        if context.trace is not None:
            context.trace.add(self.name, "object", context.engine.now - self.cycles, context.engine.now)
        for port in self.ports:
            waiter = port.waiter
            if waiter is not None and port.filled >= port.want:
                port.waiter = None
                waiter(None)
        self.send()
        store.feed()


class OutPort:
    """A core's end of a join: filled by the core, emptied into its part of the join's objects."""

    __slots__ = (
        "addresses",
        "busy",
        "context",
        "cycles",
        "depth",
        "free",
        "head",
        "join",
        "memory",
        "name",
        "part",
        "ready",
        "sent",
        "size",
        "waiter",
        "want",
    )

    def __init__(self, context: Context, name: str, depth: int, size: int, part: int):
        self.context, self.name, self.depth, self.size, self.part = context, name, depth, size, part
        self.memory = Memory(depth, size)
        self.addresses = self.memory.addresses
        self.cycles = context.costs.stream_cycles(size)
        self.free = depth
        self.head = 0  # next buffer that the core fills
        self.ready: list[
            tuple[int, tuple[int, int]]
        ] = []  # buffer address, what the core had received by then
        self.sent = self.want = 0
        self.busy = False
        self.waiter: Callable[[Any], None] | None = None
        self.join: Join

    def release(self, count: int, received: tuple[int, int]) -> None:
        """The core gives its oldest buffers away; `received`: A and B objects it had got before."""
        if count > self.free:
            raise HardwareFault(
                "release", f"a core gives away {count} objects of {self.name} and holds {self.free}"
            )
        for _ in range(count):
            self.free -= 1
            self.ready.append((self.addresses[self.head], received))
            self.head = (self.head + 1) % self.depth
        self.send()

    def send(self) -> None:
        if self.busy or not self.ready or self.sent - self.join.drained == self.join.depth:
            return
        self.busy = True
        self.context.engine.after(self.cycles, self.done)

    def done(self, _: Any) -> None:
        address, received = self.ready.pop(0)
        join = self.join
        slot = self.sent % join.depth
        ctypes.memmove(join.addresses[slot] + self.part * self.size, address, self.size)
        join.received[slot][self.part] = received
        self.busy = False
        self.sent += 1
        self.free += 1
        if self.waiter is not None and self.free >= self.want:
            waiter, self.waiter = self.waiter, None
            waiter(None)
        self.send()
        join.feed()


class Join:
    """A memtile FIFO filled by the cores of a column, one part each, and drained by a shim."""

    __slots__ = (
        "addresses",
        "depth",
        "drained",
        "feed",
        "memory",
        "name",
        "object_words",
        "parts",
        "received",
    )

    def __init__(self, name: str, depth: int, size: int, parts: list[OutPort]):
        self.name, self.depth, self.parts = name, depth, parts
        self.object_words = size // WORD
        self.memory = Memory(depth, size)
        self.addresses = self.memory.addresses
        self.drained = 0  # whole objects
        self.received = [[(0, 0)] * len(parts) for _ in range(depth)]
        self.feed: Callable[[], None]  # the shim channel's: there may be an object
        for part in parts:
            part.join = self

    def available(self) -> bool:
        return min(p.sent for p in self.parts) > self.drained

    def outgoing(self) -> int:
        """Address of the object that is being drained."""
        return self.addresses[self.drained % self.depth]

    def knowledge(self) -> list[tuple[int, int]]:
        """Per part: A and B objects that its core had received before it gave this object away."""
        return list(self.received[self.drained % self.depth])

    def complete(self) -> None:
        self.drained += 1
        for part in self.parts:
            part.send()
