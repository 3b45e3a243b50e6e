"""The controller: executes the records of an instruction stream in order and blocks in waits.

It also keeps what the stream can know about the array (see `torch_xdna.devices.array.shim`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from torch_xdna.devices.array.arguments import Argument
from torch_xdna.devices.array.array import Array
from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.devices.array.shim import (
    DESCRIPTORS,
    Channel,
    ReadChannel,
    Shim,
    Task,
)
from torch_xdna.lowering.commands.commands import AddressPatch, BlockWrite, Dma, MaskWrite, Wait, Write32
from torch_xdna.lowering.commands.decode import decode, records
from torch_xdna.lowering.commands.registers import (
    CONTROL,
    DESCRIPTOR_ADDRESS_FIELD,
    DESCRIPTOR_BASE,
    DESCRIPTOR_STEP,
    QUEUE,
    TOKEN_BIT,
    TOKEN_ID_MASK,
    TOKEN_ID_SHIFT,
)

Numbered = tuple[int, BlockWrite | AddressPatch | Write32 | MaskWrite | Wait]  # with its command's number

_CHANNEL_OF_QUEUE = {address: channel for channel, address in QUEUE.items()}
_CHANNEL_OF_CONTROL = {address: channel for channel, address in CONTROL.items()}


class Controller:
    def __init__(self, array: Array, commands: Sequence[Numbered], arguments: list[Argument]):
        self.array, self.commands, self.arguments = array, commands, arguments
        self.position = 0
        self.finished = False
        self.end = 0.0
        self.token_ids: dict[Channel, int] = {}  # set by this stream: what earlier ones left is not relied on
        self.next_push = 0.0  # when the controller can push again
        self.waiting: tuple[int, Channel, Task] | None = None  # command, and whose token

    def start(self) -> None:
        self.array.context.engine.after(0.0, self.step)

    def step(self, _: Any = None) -> None:
        """Execute the next record."""
        if self.position == len(self.commands):
            self.finished, self.end = True, self.array.context.engine.now
            self.refuse_leftovers()
            return
        number, record = self.commands[self.position]
        costs, now = self.array.context.costs, self.array.context.engine.now
        if isinstance(record, Write32) and record.address in _CHANNEL_OF_QUEUE and now < self.next_push:
            self.array.context.engine.after(self.next_push - now, self.step)
            return
        self.position += 1
        if isinstance(record, Wait):
            self.wait(number, record)
            return
        shim = self.shim(number, record)
        if isinstance(record, BlockWrite):
            bd, field = self.descriptor(number, record)
            if field + len(record.words) > 8:
                raise HardwareFault("register", f"command {number} writes across two descriptors")
            shim.write(bd, field, record.words, f"command {number} (column {record.column})")
            cycles = costs.controller_cycles("blockwrite", len(record.words))
        elif isinstance(record, AddressPatch):
            bd, field = self.descriptor(number, record)
            if 4 * field != DESCRIPTOR_ADDRESS_FIELD:
                raise HardwareFault(
                    "register", f"command {number} patches word {field} of descriptor {bd}, no address"
                )
            shim.patch(bd, record.arg, record.offset, f"command {number} (column {record.column})")
            cycles = costs.controller_cycles("address_patch")
        elif isinstance(record, MaskWrite):
            self.set_token_id(number, record)
            cycles = costs.controller_cycles("maskwrite")
        else:
            self.write(number, shim, record)
            cycles = costs.controller_cycles("write32")
        self.array.context.engine.after(cycles, self.step)

    def shim(self, number: int, record: BlockWrite | AddressPatch | Write32 | MaskWrite) -> Shim:
        if record.row != 0:
            raise HardwareFault(
                "register", f"command {number} writes a register of tile ({record.column}, {record.row})"
            )
        if record.column >= len(self.array.shims):
            raise HardwareFault(
                "register",
                f"command {number} names column {record.column}, the overlay has {len(self.array.shims)}",
            )
        return self.array.shims[record.column]

    def descriptor(self, number: int, record: BlockWrite | AddressPatch | Write32) -> tuple[int, int]:
        """(descriptor, word in it) of an address."""
        bd, rest = divmod(record.address - DESCRIPTOR_BASE, DESCRIPTOR_STEP)
        if not 0 <= bd < DESCRIPTORS:
            raise HardwareFault(
                "register",
                f"command {number} (column {record.column}) writes {record.address:#x}: not a queue",
            )
        return bd, rest // 4

    def write(self, number: int, shim: Shim, record: Write32) -> None:
        key = _CHANNEL_OF_QUEUE.get(record.address)
        if key is None:
            bd, field = self.descriptor(number, record)
            shim.write(bd, field, (record.value,), f"command {number} (column {record.column})")
            return
        channel = self.channel(number, record.column, key)
        if record.value & TOKEN_BIT:
            self.check_token_id(number, channel)
        costs = self.array.context.costs
        self.next_push = self.array.context.engine.now + (
            costs.push_next if channel.queue else costs.push_cold
        )
        shim.push(channel, record.value, number, self.arguments, self.array.channels)

    def set_token_id(self, number: int, record: MaskWrite) -> None:
        key = _CHANNEL_OF_CONTROL.get(record.address)
        if key is None or record.mask != TOKEN_ID_MASK or record.value & ~TOKEN_ID_MASK:
            raise HardwareFault(
                "register",
                f"command {number} (column {record.column}) writes {record.value:#x} under mask "
                f"{record.mask:#x} to {record.address:#x}: only a channel's token id is known "
                f"({TOKEN_ID_MASK:#x} of its control register)",
            )
        channel = self.channel(number, record.column, key)
        value = record.value >> TOKEN_ID_SHIFT
        if channel.unclaimed and value != self.token_ids.get(channel, 0):
            raise HardwareFault(
                "token",
                f"command {number} changes the token id of {channel.name} while nobody has waited for the token of "
                f"{channel.unclaimed[0].where}",
            )
        self.token_ids[channel] = value

    def check_token_id(self, number: int, channel: Channel) -> None:
        """A token is a packet: only the id that the overlay routes to the controller arrives there."""
        passes = self.array.overlay.token_id
        value = self.token_ids.get(channel, 0)
        if value != passes:
            raise HardwareFault(
                "token",
                f"command {number} ({channel.name}) asks for a token, but the token id of that channel is {value}"
                f"{'' if channel in self.token_ids else ', since this stream has not set it'}: only id {passes} "
                f"reaches the controller, and the wait for it would never end",
            )

    def channel(self, number: int, column: int, key: tuple[str, int]) -> Channel:
        if column >= len(self.array.shims) or key not in self.array.shims[column].channels:
            raise HardwareFault(
                "register",
                f"command {number} uses column {column} {key[0]} {key[1]}, where nothing is connected",
            )
        return self.array.shims[column].channels[key]

    def wait(self, number: int, record: Wait) -> None:
        channel = self.channel(number, record.column, (record.direction, record.channel))
        if not channel.unclaimed:
            raise HardwareFault(
                "token", f"command {number} waits for a token of {channel.name} that was never issued"
            )
        task = channel.unclaimed.popleft()
        if task.done:
            self.claim(channel, task)
        else:
            self.waiting = (number, channel, task)
            channel.waiter = self.arrived

    def arrived(self) -> None:
        assert self.waiting is not None
        _, channel, task = self.waiting
        self.waiting = None
        self.claim(channel, task)

    def claim(self, channel: Channel, task: Task) -> None:
        """A token was waited for: learn what it proves, and go on."""
        channel.learn(task)
        if task.received:  # of a transfer into memory: what its cores must have received
            self.learn_from_cores(channel.column, task.received)
        self.array.context.engine.after(self.array.context.costs.controller_cycles("sync"), self.step)

    def learn_from_cores(self, column: int, received: list[tuple[int, int]]) -> None:
        """`received`: per row of a column, the A and B objects that its core has had."""
        per_object = self.array.overlay.rows_per_a_object
        for row, (a, b) in enumerate(received):
            for source, number, count in ((row // per_object, 0, a), (column, 1, b)):
                channel = self.array.shims[source].channels["MM2S", number]
                assert isinstance(channel, ReadChannel)
                channel.learn_objects(count)

    def refuse_leftovers(self) -> None:
        """At the stream's end: tokens and writes that nobody waited for."""
        for channel in self.array.channels:
            if channel.unclaimed:
                task = channel.unclaimed[0]
                raise HardwareFault("token", f"{task.where} issues a token that nobody waits for")
            if channel.direction == "S2MM" and channel.unknown:
                task = channel.unknown[0]
                raise HardwareFault(
                    "token", f"{task.where} writes memory and nobody waits for its completion"
                )


def numbered(words: np.ndarray) -> list[Numbered]:
    """The records of a stream, each with the number of its command (as `torch-xdna disasm` counts them)."""
    raw = records(words)
    result: list[Numbered] = []
    for number, command in enumerate(decode(words)):
        for _ in range(3 if isinstance(command, Dma) else 1):
            result.append((number, raw[len(result)]))
    return result
