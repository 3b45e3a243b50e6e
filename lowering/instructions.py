"""Commands of a dispatch -> the NPU's binary instruction words (a "transaction" stream).

Three commands make a program. `Dma` is a transfer of one shim: it writes the descriptor, has the driver patch
the argument's address into it, and pushes it on a channel's task queue. `Wait` blocks the controller until
one token of a channel has come. `MaskWrite` changes some bits of a register: a stream names the id of each channel's
tokens with it (`token_id`). `BlockWrite`, `AddressPatch` and `Write32` are the raw records behind `Dma`; the decoder
returns them where a stream does not group into a `Dma` (see `lowering.decode`).

    python -m lowering.instructions check FILE.json    # compare with a file of commands and expected words

Design notes, learned from mlir-aie's output for the same commands:
- Every field of a step holds step - 1 in words, so a step of 0 exists only as "repeat": the outermost size
  with step 0 becomes the push's repeat count with an iteration field of 0.
- [r, 1, 1, n] with inner steps [0, 0, 1] is linear: wraps are not used at all and n is not limited to 1023
  words.
- Transfers into memory (S2MM) issue a token whether or not it is asked for, so every one of them must be
  waited for.
- A token travels as a packet, and the routes to the controller let only the tile's controller id pass. After a
  reset the id of a channel is 0: its tokens would be lost, and the first wait for one would never end. So every
  stream sets the id of each channel before its first push that asks for a token; mlir-aie repeats it before
  every such push.
- mlir-aie lets a step of 2^20 + 1 words and 65 repeats through its verifier; neither fits its register field,
  so both are refused here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lowering import limits
from lowering.errors import LimitError

MM2S, S2MM = "MM2S", "S2MM"  # memory to stream (into the array), stream to memory

# Transaction header: version 0.1, device generation 3 (AIE2), 6 tile rows; then columns, 1 memtile row.
VERSION_WORD = 0x06030100
MEMTILE_ROWS = 1
HEADER_WORDS = 4

OPCODE_WRITE32, OPCODE_BLOCKWRITE, OPCODE_MASKWRITE, OPCODE_WAIT, OPCODE_PATCH = 0x00, 0x01, 0x03, 0x80, 0x81
RECORD_WORDS = {
    OPCODE_WRITE32: 6, OPCODE_BLOCKWRITE: 12, OPCODE_MASKWRITE: 7, OPCODE_WAIT: 4, OPCODE_PATCH: 12,
}  # fmt: skip

# Register map of a shim (byte addresses in the tile)
COLUMN_SHIFT, ROW_SHIFT = 25, 20
DESCRIPTOR_BASE, DESCRIPTOR_STEP, DESCRIPTOR_ADDRESS_FIELD = 0x1D000, 0x20, 0x4
QUEUE = {(S2MM, 0): 0x1D204, (S2MM, 1): 0x1D20C, (MM2S, 0): 0x1D214, (MM2S, 1): 0x1D21C}
CONTROL = {
    channel: queue - 4 for channel, queue in QUEUE.items()
}  # a channel's Ctrl register (AM025, noc_module/dma)
TOKEN_ID_SHIFT, TOKEN_ID_MASK = 8, 0x1F00  # of Ctrl: the field that mlir-aie writes
TOKEN_BIT = 1 << 31
BURST_256 = 2 << 30  # longest bursts, word 4 of a descriptor
CACHE_AXI = 2 << 24  # word 5
VALID = 1 << 25  # word 7


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
        fields = _descriptor_fields(self)
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


def encode(commands: Sequence[Command], *, device_columns: int = limits.COLUMNS.maximum) -> np.ndarray:
    """The stream's words (uint32), header included. Raises `LimitError` for what the hardware can't do."""
    limits.COLUMNS.check(device_columns, "the number of device columns")
    words: list[int] = []
    records = 0
    for command in commands:
        records += _append(words, command)
    header = [VERSION_WORD, MEMTILE_ROWS << 8 | device_columns, records, 4 * (HEADER_WORDS + len(words))]
    limits.INSTRUCTION_HEAP.check(header[3], "the instruction stream")
    return np.array(header + words, dtype=np.uint32)


def _append(words: list[int], command: Command) -> int:
    """Append the command's records to `words`; returns how many."""
    if isinstance(command, Dma):
        return _append_dma(words, command)
    if isinstance(command, Wait):
        _check_channel(command, "wait")
        target = command.column << 16 | (command.direction == MM2S)
        words += [OPCODE_WAIT, 16, target, command.channel << 24 | 1 << 16 | 1 << 8]
    elif isinstance(command, Write32):
        limits.WORD.check(command.value, "a register's value")
        words += [OPCODE_WRITE32, 0, _tile_address(command), 0, command.value, 24]
    elif isinstance(command, MaskWrite):
        limits.WORD.check(command.value, "a register's value")
        limits.WORD.check(command.mask, "a register's mask")
        words += [OPCODE_MASKWRITE, 0, _tile_address(command), 0, command.value, command.mask, 28]
    elif isinstance(command, BlockWrite):
        words += [OPCODE_BLOCKWRITE, 0, _tile_address(command), 48, *command.words]
    else:
        limits.ARGUMENT_OFFSET.check(command.offset, "an address patch")
        words += [OPCODE_PATCH, 48, 0, 0, 0, 0, _tile_address(command), 0, command.arg, 0, command.offset, 0]
    return 1


def _append_dma(words: list[int], dma: Dma) -> int:
    fields = _descriptor_fields(dma)
    tile = dma.column << COLUMN_SHIFT
    address = tile | DESCRIPTOR_BASE + DESCRIPTOR_STEP * dma.bd
    outer, second, first, innermost = fields.strides
    if dma.linear:
        words3, words4, words5 = 0, BURST_256, CACHE_AXI
    else:
        words3 = fields.innermost << 20 | innermost
        words4 = BURST_256 | dma.sizes[2] << 20 | first
        words5 = CACHE_AXI | second
    words += [OPCODE_BLOCKWRITE, 0, address, 48]
    words += [fields.length, 0, 0, words3, words4, words5, fields.iterations << 20 | outer, VALID]
    offset = dma.offset * dma.element_bytes
    words += [OPCODE_PATCH, 48, 0, 0, 0, 0, address + DESCRIPTOR_ADDRESS_FIELD, 0, dma.arg, 0, offset, 0]
    push = dma.bd | (dma.sizes[0] - 1) << 16 | (TOKEN_BIT if dma.token else 0)
    words += [OPCODE_WRITE32, 0, tile | QUEUE[dma.direction, dma.channel], 0, push, 24]
    return 3


@dataclass(frozen=True)
class _Fields:
    """Register fields of a descriptor; strides (outermost first) hold step - 1, 0 where unused."""

    length: int  # words of one repeat
    innermost: int  # words
    iterations: int
    strides: tuple[int, int, int, int]


def _descriptor_fields(dma: Dma) -> _Fields:
    """Check every limit of a transfer and compute its register fields."""
    _check_channel(dma, "transfer")
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
    return _Fields(length, innermost, iterations, (strides[0], strides[1], strides[2], strides[3]))


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


def _check_channel(command: Dma | Wait, what: str) -> None:
    if not 0 <= command.column < limits.COLUMNS.maximum:
        raise LimitError(
            f"columns: a {what} names column {command.column}, there are {limits.COLUMNS.maximum}"
        )
    if (command.direction, command.channel) not in QUEUE:
        raise LimitError(f"shim DMA channels: a {what} names channel {command.direction} {command.channel}")


def _tile_address(command: Write32 | MaskWrite | BlockWrite | AddressPatch) -> int:
    limits.TILE_ADDRESS.check(command.address, "a register's address")
    if not (0 <= command.column < limits.COLUMNS.maximum and 0 <= command.row < 2 + limits.CORE_ROWS):
        raise LimitError(f"columns: there is no tile at column {command.column}, row {command.row}")
    if command.address < 0 or command.address % limits.GRANULE:
        raise LimitError(f"tile address: {command.address:#x} is not a multiple of {limits.GRANULE}")
    return command.column << COLUMN_SHIFT | command.row << ROW_SHIFT | command.address


if __name__ == "__main__":
    from lowering.check_words import main

    sys.exit(main(sys.argv[1:]))
