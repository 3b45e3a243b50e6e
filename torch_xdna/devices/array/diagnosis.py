"""What is wrong when nothing moves: who waits for whom, and what a stream left behind."""

from __future__ import annotations

from collections.abc import Sequence

from torch_xdna.devices.array.arguments import Argument, Range
from torch_xdna.devices.array.array import Array
from torch_xdna.devices.array.controller import Controller
from torch_xdna.devices.array.core import Core
from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.devices.array.fabric import InPort


def deadlock(array: Array, controller: Controller) -> str:
    """Everything that waits, from the controller to the cores, in one sentence per waiter."""
    assert controller.waiting is not None
    number, _, task = controller.waiting
    lines = [f"command {number} waits for the token of {task.where}, which has {task.left} words to go"]
    lines += _channels(array) + _cores(array)
    return "; ".join(lines)


def _channels(array: Array) -> list[str]:
    lines = []
    for channel in array.channels:
        if not channel.queue:
            continue
        task = channel.queue[0]
        if channel.direction == "MM2S":
            lines.append(f"{task.where} waits for room in {channel.store.name}, {task.left} words to go")
        else:
            lines.append(f"{task.where} waits for an object of {channel.store.name}, {task.left} words to go")
    return lines


def _cores(array: Array) -> list[str]:
    lines = []
    for core in array.cores:
        port = core.waits_for
        if core.idle or port is None:
            continue
        if isinstance(port, InPort):
            reason = (
                f"for {port.want} objects of {port.name} (has {port.filled}), {_supply(array, core, port)}"
            )
        else:
            reason = f"for room in {port.name}"
        lines.append(f"{core.tile} waits {reason}, at {core.where()}")
    return lines


def _supply(array: Array, core: Core, port: InPort) -> str:
    """Why a port gets nothing."""
    sender = port.sender
    if sender.sent < sender.store.arrived:
        full = [p for p in sender.ports if p.filled == p.depth]
        behind = [str(c.tile) for c in array.cores if any(p in full for p in c.ports.values())]
        return f"blocked because {', '.join(behind)} took none of theirs"
    channel = next(c for c in array.channels if c.store is sender.store)
    return f"{channel.name} has no task" if not channel.queue else f"{channel.name} is blocked itself"


def check_finished(
    array: Array, arguments: Sequence[Argument], results: Sequence[Sequence[Range]] | None
) -> None:
    """Refuse what a stream left behind: it would be the beginning of the next run's data."""
    for core in array.cores:
        if not core.idle:
            raise HardwareFault(
                "leftover", f"at the stream's end {core.tile} is in the middle of an op: {core.where()}"
            )
    for channel in array.channels:
        if channel.queue:
            task = channel.queue[0]
            raise HardwareFault("leftover", f"at the stream's end {task.where} has {task.left} words to go")
        if channel.position:
            raise HardwareFault(
                "leftover", f"at the stream's end {channel.name} has moved only part of an object"
            )
    for store in array.stores:
        if any(s.sent < store.arrived for s in store.senders) or any(
            p.filled for s in store.senders for p in s.ports
        ):
            raise HardwareFault("leftover", f"at the stream's end objects are left in {store.name}")
    for join in array.joins:
        if any(p.sent > join.drained or p.ready for p in join.parts):
            raise HardwareFault("leftover", f"at the stream's end objects are left in {join.name}")
    for argument, ranges in zip(arguments, results or ()):
        for offset, size in ranges:
            if not argument.settled(offset, size):
                raise HardwareFault(
                    "result", f"bytes {offset} to {offset + size} of the results were not all written"
                )
    for channel in array.channels:
        channel.unknown.clear()  # the run's end proves that all of it is complete
