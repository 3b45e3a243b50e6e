"""The commands of a dispatch, and the limits of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch_xdna.lowering import limits
from torch_xdna.lowering.commands.registers import (
    CONTROL,
    QUEUE,
    S2MM,
    TOKEN_ID_MASK,
    TOKEN_ID_SHIFT,
)
from torch_xdna.lowering.errors import LimitError


@dataclass(frozen=True)
class Dma:
    """A transfer by channel `channel` of shim `column`.

    `offset`, `sizes` and `strides` are in elements of `element_bytes`, outermost first; the outermost size
    repeats the rest and is the only one whose stride may be 0. `arg` is the kernel argument (0, 1, ...).
    `label` is for people.
    """

    column: int
    direction: str
    channel: int
    bd: int
    arg: int
    offset: int
    sizes: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    element_bytes: int = 4
    issue_token: bool = False
    label: str = field(default="", compare=False)

    @property
    def token(self) -> bool:
        """Whether a token comes back: asked for, or a transfer into memory."""
        return self.issue_token or self.direction == S2MM

    @property
    def linear(self) -> bool:
        """Whether one repeat is a plain contiguous run, for which no wrap limits apply."""
        return self.sizes[1:3] == (1, 1) and self.strides[1:] == (0, 0, 1)

    @property
    def bytes(self) -> int:
        """Bytes moved, repeats included."""
        s = self.sizes
        return s[0] * s[1] * s[2] * s[3] * self.element_bytes

    def in_words(self) -> Dma:
        """The same transfer in 32-bit words with unused strides 0: what decoding returns."""
        fields = descriptor_fields(self)
        strides = [fields.strides[i] + 1 if self.sizes[i] > 1 else 0 for i in (1, 2)]
        if not self.linear and self.sizes[1:3] == (1, 1) and fields.strides[3] == 0:
            strides[1] = 1  # written with wraps although contiguous
        outer = fields.strides[0] + 1 if fields.iterations else 0
        return Dma(
            self.column,
            self.direction,
            self.channel,
            self.bd,
            self.arg,
            self.offset * self.element_bytes // limits.GRANULE,
            (self.sizes[0], self.sizes[1], self.sizes[2], fields.innermost),
            (outer, strides[0], strides[1], fields.strides[3] + 1),
            4,
            self.token,
            self.label,
        )


@dataclass(frozen=True)
class Wait:
    """Block until one token of this channel has come."""

    column: int
    direction: str
    channel: int


@dataclass(frozen=True)
class Write32:
    """Write `value` to byte `address` of the tile at (column, row)."""

    column: int
    row: int
    address: int
    value: int


@dataclass(frozen=True)
class MaskWrite:
    """Write those bits of `value` that are set in `mask` to byte `address` of the tile at (column, row)."""

    column: int
    row: int
    address: int
    value: int
    mask: int


@dataclass(frozen=True)
class BlockWrite:
    """Write eight words to consecutive registers of a tile: a descriptor, not yet patched."""

    column: int
    row: int
    address: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class AddressPatch:
    """Have the driver put the address of kernel argument `arg` plus `offset` bytes into a descriptor."""

    column: int
    row: int
    address: int
    arg: int
    offset: int


Command = Dma | Wait | Write32 | MaskWrite | BlockWrite | AddressPatch


def token_id(column: int, direction: str, channel: int, value: int = limits.TOKEN_ID) -> MaskWrite:
    """Have the tokens of a shim's channel carry the controller id `value`."""
    return MaskWrite(column, 0, CONTROL[direction, channel], value << TOKEN_ID_SHIFT, TOKEN_ID_MASK)


def with_token_ids(commands: Iterable[Command], value: int = limits.TOKEN_ID) -> list[Command]:
    """`commands` with `token_id` before the first push of each channel that asks for a token."""
    result: list[Command] = []
    known: set[tuple[int, str, int]] = set()
    for command in commands:
        if isinstance(command, Dma) and command.token:
            channel = (command.column, command.direction, command.channel)
            if channel not in known:
                known.add(channel)
                result.append(token_id(*channel, value))
        result.append(command)
    return result


@dataclass(frozen=True)
class Fields:
    """Register fields of a descriptor; strides (outermost first) hold step - 1, 0 where unused."""

    length: int  # words of one repeat
    innermost: int  # words
    iterations: int
    strides: tuple[int, int, int, int]


def descriptor_fields(dma: Dma) -> Fields:
    """Check every limit of a transfer and compute its register fields."""
    check_channel(dma, "transfer")
    limits.SHIM_DESCRIPTOR.check(dma.bd, "a transfer's descriptor")
    limits.KERNEL_ARGUMENT.check(dma.arg, "a transfer's argument")
    if min(dma.bd, dma.arg, dma.offset) < 0 or len(dma.sizes) != 4 or len(dma.strides) != 4:
        raise LimitError(
            f"transfer: bd, arg and offset count from 0, sizes and strides have 4 entries: {dma}"
        )
    if dma.element_bytes not in (1, 2, 4):
        raise LimitError(
            f"transfer element: {dma.element_bytes} bytes, a shim moves elements of 1, 2 or 4 bytes"
        )
    if min(dma.sizes) < 1:
        raise LimitError(f"transfer size: sizes {dma.sizes} must all be positive")
    limits.SHIM_ITERATION.check(dma.sizes[0], "the outermost size")
    limits.SHIM_WRAP.check(dma.sizes[2], "size 1 of a transfer")
    width = dma.element_bytes
    _check_granule(dma.sizes[3] * width, "the innermost run")
    _check_granule(dma.offset * width, "the offset")
    limits.ARGUMENT_OFFSET.check(dma.offset * width, "a transfer's offset")
    innermost = dma.sizes[3] * width // limits.GRANULE
    if not dma.linear:
        limits.SHIM_WRAP.check(innermost, "size 0 of a transfer")
    strides = [_step_field(dma, 3 - position) for position in range(4)]
    length = innermost * dma.sizes[1] * dma.sizes[2]
    limits.SHIM_LENGTH.check(length, "one repeat of a transfer")
    iterations = dma.sizes[0] - 1 if dma.strides[0] > 0 else 0
    return Fields(length, innermost, iterations, (strides[0], strides[1], strides[2], strides[3]))


def _step_field(dma: Dma, number: int) -> int:
    """The register field (step - 1 in words) of dimension `number` (0 is the innermost); 0 if unused."""
    size, stride = dma.sizes[3 - number], dma.strides[3 - number]
    if number == 0 and stride == 1:
        return 0
    number_of_bytes = stride * dma.element_bytes
    if number_of_bytes % limits.GRANULE:
        _check_granule(number_of_bytes, f"stride {number}")
    lowest = 0 if number == 3 else 1
    if size > 1 and stride < lowest:
        raise LimitError(
            f"shim step: stride {number} of a transfer is {stride}, it must be at least {lowest}"
        )
    if (size == 1 and number > 0) or stride <= 0:
        return 0
    step = number_of_bytes // limits.GRANULE
    if step > limits.SHIM_STEP.maximum:
        limits.SHIM_STEP.check(step, f"stride {number} of a transfer")
    return step - 1


def _check_granule(number_of_bytes: int, what: str) -> None:
    if number_of_bytes % limits.GRANULE:
        raise LimitError(
            f"DMA granularity: {what} is {number_of_bytes} bytes, not a multiple of {limits.GRANULE}"
        )


def check_channel(command: Dma | Wait, what: str) -> None:
    if not 0 <= command.column < limits.COLUMNS.maximum:
        raise LimitError(
            f"columns: a {what} names column {command.column}, there are {limits.COLUMNS.maximum}"
        )
    if (command.direction, command.channel) not in QUEUE:
        raise LimitError(f"shim DMA channels: a {what} names channel {command.direction} {command.channel}")
