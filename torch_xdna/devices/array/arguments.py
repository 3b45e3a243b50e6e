"""The kernel's arguments as the shims see them, and which of their words hold something.

Every 32-bit word of an argument is unwritten, settled (the host wrote it, or a transfer whose completion the
instruction stream has waited for), pending (a transfer into it was pushed and nobody has waited for it yet)
or raced (two transfers into it were under way at once: fine only for results that nobody wants). Reading
anything but settled words is refused when the reading task is pushed: whether the data would have been there
in time is luck, on hardware as in a simulation.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.devices.array.transfer import Transfer

UNWRITTEN, SETTLED, PENDING, RACED = 0, 1, 2, 3
Range = tuple[int, int]  # byte offset, byte size


class Argument:
    """One kernel argument: a contiguous uint8 array, written in place."""

    def __init__(self, number: int, data: np.ndarray, written: Sequence[Range] | None):
        if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous or data.nbytes % 4:
            raise ValueError(f"argument {number} must be a contiguous 1-D uint8 array of whole 32-bit words")
        self.number = number
        self.data = data
        self.address = data.ctypes.data
        self.words = data.nbytes // 4
        self.all_settled = written is None
        self.state = np.full(self.words, SETTLED if written is None else UNWRITTEN, dtype=np.uint8)
        for offset, size in written or ():
            if not (offset >= 0 and offset + size <= data.nbytes) or offset % 4 or size % 4:
                raise ValueError(
                    f"argument {number}: range ({offset}, {size}) is not within {data.nbytes} bytes"
                )
            self.state[offset // 4 : (offset + size) // 4] = SETTLED

    def check_inside(self, transfer: Transfer, where: str) -> None:
        first, last = transfer.extent
        if first < 0 or last > self.words:
            raise HardwareFault(
                "address",
                f"{where} touches bytes {4 * first} to {4 * last} of argument {self.number}, "
                f"which has {4 * self.words}",
            )

    def check_settled(self, transfer: Transfer, where: str, writers: Callable[[], str]) -> None:
        """Refuse a read of words that no awaited transfer wrote; `writers` names those that write them."""
        if self.all_settled:
            return
        for view in transfer.select(self.state):
            if (view == SETTLED).all():
                continue
            if (view == RACED).any():
                raise HardwareFault(
                    "read", f"{where} reads memory that several transfers wrote in no certain order"
                )
            if (view == PENDING).any():
                raise HardwareFault(
                    "read", f"{where} reads what is still being written: nobody waited for {writers()}"
                )
            raise HardwareFault(
                "read", f"{where} reads memory of argument {self.number} that nothing has written"
            )

    def begin_write(self, transfer: Transfer, raced: bool) -> None:
        """A write was pushed; `raced`: while another one to some of the same words is under way."""
        self.all_settled = False
        for view in transfer.select(self.state):
            view[...] = np.where(view >= PENDING, RACED, PENDING) if raced else PENDING

    def end_write(self, transfer: Transfer) -> None:
        """A write is known to be complete."""
        for view in transfer.select(self.state):
            view[view == PENDING] = SETTLED

    def settled(self, offset: int, size: int) -> bool:
        """Whether every word of a byte range is settled."""
        return bool((self.state[offset // 4 : -(-(offset + size) // 4)] == SETTLED).all())


def overlap(first: Transfer, second: Transfer) -> bool:
    """Whether two transfers of one argument touch a common word."""
    (a0, a1), (b0, b1) = first.extent, second.extent
    low, high = max(a0, b0), min(a1, b1)
    if low >= high:
        return False
    base, end = min(a0, b0), max(a1, b1)
    marks = np.zeros(end - base, dtype=bool)
    for view in _shifted(first, base).select(marks):
        view[...] = True
    return any(view.any() for view in _shifted(second, base).select(marks))


def _shifted(transfer: Transfer, base: int) -> Transfer:
    bases = tuple(b - base for b in transfer.bases)
    return Transfer(bases, transfer.sizes, transfer.strides, transfer.length)


class Cursor:
    """Moves a transfer's words between an argument and buffers, piece by piece in stream order."""

    __slots__ = ("address", "position", "run", "starts")

    def __init__(self, argument: Argument, transfer: Transfer):
        self.address = argument.address
        self.starts, self.run = transfer.runs()
        self.position = 0

    def move(self, buffer: int, words: int, to_memory: bool) -> None:
        """Copy the next `words` words from or to address `buffer`."""
        run, position = self.run, self.position
        end = position + words
        while position < end:
            index, inside = divmod(position, run)
            count = min(run - inside, end - position)
            memory = self.address + 4 * (self.starts[index] + inside)
            if to_memory:
                ctypes.memmove(memory, buffer, 4 * count)
            else:
                ctypes.memmove(buffer, memory, 4 * count)
            buffer += 4 * count
            position += count
        self.position = end
