"""Commands of a dispatch -> the NPU's binary instruction words (a "transaction" stream).

Three commands make a program. `Dma` is a transfer of one shim: it writes the descriptor, has the driver patch
the argument's address into it, and pushes it on a channel's task queue. `Wait` blocks the controller until
one token of a channel has come. `MaskWrite` changes some bits of a register: a stream names the id of each channel's
tokens with it (`token_id`). `BlockWrite`, `AddressPatch` and `Write32` are the raw records behind `Dma`; the decoder
returns them where a stream does not group into a `Dma` (see `lowering.commands.decode`).

    python -m torch_xdna.lowering.commands check FILE.json    # compare with a file of commands and expected words

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

from collections.abc import Sequence

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
    check_channel,
    descriptor_fields,
)
from torch_xdna.lowering.commands.registers import (
    BURST_256,
    CACHE_AXI,
    COLUMN_SHIFT,
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
    ROW_SHIFT,
    STREAM_HEADER_WORDS,
    TOKEN_BIT,
    VALID,
    VERSION_WORD,
)
from torch_xdna.lowering.errors import LimitError


def encode(commands: Sequence[Command], *, device_columns: int = limits.COLUMNS.maximum) -> np.ndarray:
    """The stream's words (uint32), header included. Raises `LimitError` for what the hardware can't do."""
    limits.COLUMNS.check(device_columns, "the number of device columns")
    words: list[int] = []
    records = 0
    for command in commands:
        records += _append(words, command)
    header = [
        VERSION_WORD,
        MEMTILE_ROWS << 8 | device_columns,
        records,
        4 * (STREAM_HEADER_WORDS + len(words)),
    ]
    limits.INSTRUCTION_HEAP.check(header[3], "the instruction stream")
    return np.array(header + words, dtype=np.uint32)


def _append(words: list[int], command: Command) -> int:
    """Append the command's records to `words`; returns how many."""
    if isinstance(command, Dma):
        return _append_dma(words, command)
    if isinstance(command, Wait):
        check_channel(command, "wait")
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
    fields = descriptor_fields(dma)
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


def _tile_address(command: Write32 | MaskWrite | BlockWrite | AddressPatch) -> int:
    limits.TILE_ADDRESS.check(command.address, "a register's address")
    if not (0 <= command.column < limits.COLUMNS.maximum and 0 <= command.row < 2 + limits.CORE_ROWS):
        raise LimitError(f"columns: there is no tile at column {command.column}, row {command.row}")
    if command.address < 0 or command.address % limits.GRANULE:
        raise LimitError(f"tile address: {command.address:#x} is not a multiple of {limits.GRANULE}")
    return command.column << COLUMN_SHIFT | command.row << ROW_SHIFT | command.address
