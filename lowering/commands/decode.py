"""Instruction words -> commands -> a listing: the encoder's inverse, strict about what it does not know.

A descriptor write, its address patch and its push are one `Dma`. Where the three do not belong together
(another descriptor is patched or pushed, fields that no `Dma` has), the raw records are returned, so that
decoding then encoding gives back exactly the same words for every well-formed stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from torch_xdna.lowering import limits
from torch_xdna.lowering.commands.commands import (
    AddressPatch,
    BlockWrite,
    Command,
    Dma,
    MaskWrite,
    Wait,
    Write32,
)
from torch_xdna.lowering.commands.registers import (
    BURST_256,
    CACHE_AXI,
    COLUMN_SHIFT,
    CONTROL,
    DESCRIPTOR_ADDRESS_FIELD,
    DESCRIPTOR_BASE,
    DESCRIPTOR_STEP,
    MEMTILE_ROWS,
    MM2S,
    OPCODE_BLOCKWRITE,
    OPCODE_MASKWRITE,
    OPCODE_PATCH,
    OPCODE_WAIT,
    OPCODE_WRITE32,
    QUEUE,
    RECORD_WORDS,
    ROW_SHIFT,
    S2MM,
    STREAM_HEADER_WORDS,
    TOKEN_BIT,
    TOKEN_ID_MASK,
    TOKEN_ID_SHIFT,
    VALID,
    VERSION_WORD,
)
from torch_xdna.lowering.errors import LoweringError

Record = BlockWrite | AddressPatch | Write32 | MaskWrite | Wait
_CHANNEL_OF_QUEUE = {address: channel for channel, address in QUEUE.items()}
_CHANNEL_OF_CONTROL = {address: channel for channel, address in CONTROL.items()}
_FIELD_10, _FIELD_20 = 0x3FF, 0xFFFFF


class DecodeError(LoweringError):
    """The words are no instruction stream of this device; the message names the word."""


def decode(words: np.ndarray | Sequence[int]) -> list[Command]:
    """The commands of a stream, transfers in words (`Dma.in_words`). Raises `DecodeError`."""
    pending = records(words)
    commands: list[Command] = []
    position = 0
    while position < len(pending):
        dma = _as_dma(*pending[position : position + 3]) if position + 3 <= len(pending) else None
        commands.append(dma or pending[position])
        position += 3 if dma else 1
    return commands


def device_columns(words: np.ndarray | Sequence[int]) -> int:
    """The number of columns that the header states."""
    return int(words[1]) & 0xFF


def records(words: np.ndarray | Sequence[int]) -> list[Record]:
    """The raw records of a stream in order. Raises `DecodeError`."""
    stream = np.asarray(words, dtype=np.uint32).tolist()
    _check_header(stream)
    found: list[Record] = []
    position = STREAM_HEADER_WORDS
    while position < len(stream):
        length = RECORD_WORDS.get(stream[position])
        if length is None:
            raise DecodeError(f"word {position}: unknown opcode {stream[position]:#x}")
        if position + length > len(stream):
            raise DecodeError(f"word {position}: the stream ends inside a record of {length} words")
        found.append(_record(stream[position : position + length], position))
        position += length
    if len(found) != stream[2]:
        raise DecodeError(f"word 2: the header counts {stream[2]} records, the stream has {len(found)}")
    return found


def listing(commands: Iterable[Command]) -> str:
    """One line per command, for people."""
    return "\n".join(f"{index:6d}  {describe(command)}" for index, command in enumerate(commands))


def describe(command: Command) -> str:
    """A command in one line: who moves which bytes of which argument in which pattern."""
    if isinstance(command, Dma):
        arrow = "->" if command.direction == MM2S else "<-"
        token = " token" if command.token else ""
        place = f"col {command.column} {command.direction}{command.channel} bd {command.bd:2d}"
        start = command.offset * command.element_bytes
        label = f"  ; {command.label}" if command.label else ""
        return f"{place} {arrow} arg{command.arg}+{start:#09x} {pattern(command)}{token}{label}"
    if isinstance(command, Wait):
        return f"col {command.column} {command.direction}{command.channel} wait"
    tile = f"tile ({command.column}, {command.row}) {command.address:#x}"
    if isinstance(command, Write32):
        return f"{tile} write {command.value:#010x}"
    if isinstance(command, MaskWrite):
        channel = _CHANNEL_OF_CONTROL.get(command.address) if command.row == 0 else None
        if channel and command.mask == TOKEN_ID_MASK:
            return f"col {command.column} {channel[0]}{channel[1]} token id {command.value >> TOKEN_ID_SHIFT}"
        return f"{tile} write {command.value:#010x} under mask {command.mask:#010x}"
    if isinstance(command, BlockWrite):
        return f"{tile} block write {' '.join(f'{word:08x}' for word in command.words)}"
    return f"{tile} patch with arg{command.arg}+{command.offset:#x}"


def pattern(dma: Dma) -> str:
    """A transfer's loops and its contiguous run, in bytes: `repeat 3x 24x(by 16384) 8192 B`."""
    width = dma.element_bytes
    run = dma.sizes[3] * width
    parts = []
    for position, (size, stride) in enumerate(zip(dma.sizes[:3], dma.strides[:3])):
        if size > 1:
            parts.append(f"{size}x(by {stride * width})" if stride or position else f"repeat {size}x")
    return " ".join([*parts, f"{run} B" if dma.strides[3] == 1 else f"{run} B by {dma.strides[3] * width}"])


def _check_header(stream: list[int]) -> None:
    if len(stream) < STREAM_HEADER_WORDS:
        raise DecodeError(f"word 0: {len(stream)} words are too few for a header of {STREAM_HEADER_WORDS}")
    if stream[0] != VERSION_WORD:
        raise DecodeError(
            f"word 0: version {stream[0]:#010x} is not {VERSION_WORD:#010x} (0.1, AIE2, 6 rows)"
        )
    if stream[1] >> 8 != MEMTILE_ROWS or not 1 <= stream[1] & 0xFF <= limits.COLUMNS.maximum:
        raise DecodeError(f"word 1: {stream[1]:#010x} names no array of 1 to 4 columns with one memtile row")
    if stream[3] != 4 * len(stream):
        raise DecodeError(f"word 3: the header states {stream[3]} bytes, the stream has {4 * len(stream)}")


def _record(words: list[int], position: int) -> Record:
    opcode = words[0]
    if opcode == OPCODE_WAIT:
        _expect(words, {1: 16}, position)
        column, direction, channel = words[2] >> 16 & 0xFF, MM2S if words[2] & 1 else S2MM, words[3] >> 24
        one_shim = not words[2] & 0xFF00FFFE and words[3] & 0xFFFFFF == 1 << 16 | 1 << 8
        if not one_shim or column >= limits.COLUMNS.maximum or (direction, channel) not in QUEUE:
            raise DecodeError(f"word {position + 2}: this wait is not for one channel of one shim")
        return Wait(column, direction, channel)
    if opcode == OPCODE_WRITE32:
        _expect(words, {1: 0, 3: 0, 5: 24}, position)
        return Write32(*_tile(words[2], position + 2), words[4])
    if opcode == OPCODE_MASKWRITE:
        _expect(words, {1: 0, 3: 0, 6: 28}, position)
        return MaskWrite(*_tile(words[2], position + 2), words[4], words[5])
    if opcode == OPCODE_BLOCKWRITE:
        _expect(words, {1: 0, 3: 48}, position)
        return BlockWrite(*_tile(words[2], position + 2), tuple(words[4:12]))
    assert opcode == OPCODE_PATCH
    _expect(words, {1: 48, 2: 0, 3: 0, 4: 0, 5: 0, 7: 0, 9: 0, 11: 0}, position)
    if words[8] > limits.KERNEL_ARGUMENT.maximum:
        raise DecodeError(f"word {position + 8}: there is no kernel argument {words[8]:#x}")
    return AddressPatch(*_tile(words[6], position + 6), words[8], words[10])


def _expect(words: list[int], fixed: dict[int, int], position: int) -> None:
    for index, value in fixed.items():
        if words[index] != value:
            raise DecodeError(f"word {position + index}: {words[index]:#x}, expected {value:#x}")


def _tile(address: int, position: int) -> tuple[int, int, int]:
    """(column, row, byte address in the tile) of a register."""
    column, row = address >> COLUMN_SHIFT, address >> ROW_SHIFT & 0x1F
    if column >= limits.COLUMNS.maximum or row >= 2 + limits.CORE_ROWS or address % limits.GRANULE:
        raise DecodeError(f"word {position}: there is no register at {address:#010x}")
    return column, row, address & _FIELD_20


def _as_dma(block: Record, patch: Record, push: Record) -> Dma | None:
    """The transfer that three records make together, or None."""
    if not (isinstance(block, BlockWrite) and isinstance(patch, AddressPatch) and isinstance(push, Write32)):
        return None
    bd, rest = divmod(block.address - DESCRIPTOR_BASE, DESCRIPTOR_STEP)
    if rest or not 0 <= bd <= limits.SHIM_DESCRIPTOR.maximum or push.address not in _CHANNEL_OF_QUEUE:
        return None
    if {(r.column, r.row) for r in (block, patch, push)} != {(block.column, 0)}:
        return None
    if patch.address != block.address + DESCRIPTOR_ADDRESS_FIELD or push.value & 0xF != bd:
        return None
    direction, channel = _CHANNEL_OF_QUEUE[push.address]
    token = bool(push.value & TOKEN_BIT)
    repeats = (push.value >> 16 & 0xFF) + 1
    shape = _shape(block.words, repeats)
    if shape is None or patch.offset % limits.GRANULE or (direction == S2MM and not token):
        return None
    if push.value & ~(TOKEN_BIT | 0xFF << 16 | 0xF):
        return None
    sizes, strides = shape
    offset = patch.offset // limits.GRANULE
    return Dma(block.column, direction, channel, bd, patch.arg, offset, sizes, strides, 4, token)


def _shape(
    words: tuple[int, ...], repeats: int
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]] | None:
    """Sizes and strides (in words, outermost first) of a descriptor, or None if no `Dma` has its fields."""
    length, low, high, dim0, dim1, dim2, iteration, control = words
    iterations = iteration >> 20
    outer = (iteration & _FIELD_20) + 1 if iterations else 0
    if low or high or control != VALID or dim1 >> 30 << 30 != BURST_256 or dim2 >> 20 << 20 != CACHE_AXI:
        return None
    if iterations not in (0, repeats - 1) or (not iterations and iteration) or not length:
        return None
    if repeats > limits.SHIM_ITERATION.maximum:
        return None
    if dim0 == 0 and dim1 == BURST_256 and dim2 == CACHE_AXI:
        return (repeats, 1, 1, length), (outer, 0, 0, 1)
    innermost, rows = dim0 >> 20, dim1 >> 20 & _FIELD_10
    if not innermost or not rows or length % (innermost * rows) or dim0 >> 30:
        return None
    planes = length // (innermost * rows)
    first, second = (dim1 & _FIELD_20) + 1, (dim2 & _FIELD_20) + 1
    if (rows == 1 and first != 1) or (planes == 1 and second != 1):
        return None
    step = (dim0 & _FIELD_20) + 1
    explicit = rows == planes == 1 and step == 1  # written with wraps although contiguous
    strides = (outer, second if planes > 1 else 0, first if rows > 1 or explicit else 0, step)
    return (repeats, planes, rows, innermost), strides
