"""Every instruction stream is read by AMD's own disassembler, operation by operation as we read it
ourselves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import regions
from sandbox.host import Sandbox

from torch_xdna.lowering import lower
from torch_xdna.lowering.commands.commands import AddressPatch, BlockWrite, MaskWrite, Wait, Write32
from torch_xdna.lowering.commands.decode import records

GOLDEN = Path(__file__).parents[1] / "lowering" / "data" / "npu_instructions.json"
COLUMN_SHIFT, ROW_SHIFT = 25, 20
Operation = tuple


def disassemble(sandbox: Sandbox, words: np.ndarray) -> list[Operation] | str:
    """The operations that aiebu-dump prints, or what the tools say about a stream that they refuse."""
    binary, elf = sandbox.folder / "stream.bin", sandbox.folder / "stream.elf"
    binary.write_bytes(np.ascontiguousarray(words, np.uint32).tobytes())
    elf.unlink(missing_ok=True)
    assembled = sandbox.tool("aiebu-asm", "-t", "aie2txn", "-c", binary, "-o", elf)
    if assembled.returncode or not elf.exists():
        return assembled.stdout + assembled.stderr or "no output"
    dumped = sandbox.tool("aiebu-dump", "-d", elf)
    if dumped.returncode:
        return dumped.stdout + dumped.stderr or "no output"
    return parse(dumped.stdout)


def parse(text: str) -> list[Operation]:
    operations: list[Operation] = []
    for line in text.splitlines():
        if not (found := re.match(r"XAIE_IO_(\S+)\s+(.*)", line)):
            continue
        name, rest = found[1], found[2]
        if name == "BLOCKWRITE":
            address, count = re.fullmatch(r"@(\S+), \[(\d+)\]", rest.strip()).groups()
            operations.append(("block", int(address, 16), [], int(count)))
        elif name.startswith("BLOCKWRITE."):
            operations[-1][2].append(int(rest, 16))
        elif name == "WRITE":
            operations.append(("write", *(int(x.lstrip("@"), 16) for x in rest.split(", "))))
        elif name == "MASKWRITE":
            operations.append(("maskwrite", *(int(x.strip("@()"), 16) for x in rest.split(", "))))
        elif name == "CUSTOM_OP_DDR_PATCH":
            address, argument, offset = re.fullmatch(r"@(\S+), #(\d+), \+(\S+)", rest.strip()).groups()
            operations.append(("patch", int(address, 16), int(argument), int(offset, 16)))
        elif name == "CUSTOM_OP_TCT":
            column, direction, channel = re.search(r"C\[(\d+)\]\+1, #DMA_(\w+), (\d+)", rest).groups()
            operations.append(("wait", int(column), direction, int(channel)))
        else:
            operations.append((name, rest))
    return operations


def ours(words: np.ndarray) -> list[Operation]:
    """The same operations by our own decoder."""

    def place(r) -> int:
        return r.column << COLUMN_SHIFT | r.row << ROW_SHIFT | r.address

    out: list[Operation] = []
    for record in records(words):
        if isinstance(record, BlockWrite):
            out.append(("block", place(record), list(record.words), len(record.words)))
        elif isinstance(record, Write32):
            out.append(("write", place(record), record.value))
        elif isinstance(record, MaskWrite):
            out.append(("maskwrite", place(record), record.mask, record.value))
        elif isinstance(record, AddressPatch):
            out.append(("patch", place(record), record.arg, record.offset))
        else:
            assert isinstance(record, Wait)
            out.append(("wait", record.column, record.direction, record.channel))
    return out


def agree(sandbox: Sandbox, words: np.ndarray) -> int:
    theirs = disassemble(sandbox, words)
    assert not isinstance(theirs, str), theirs
    assert len(theirs) == len(ours(words))
    assert theirs == ours(words)
    return len(theirs)


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("name", regions.single_ops())
def test_single_ops(sandbox: Sandbox, name: str, columns: int) -> None:
    assert agree(sandbox, lower(regions.single_ops()[name], columns=columns).words) > 0


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_small_encoder(sandbox: Sandbox, columns: int) -> None:
    agree(sandbox, lower(regions.encoder(2, 128, 200), columns=columns).words)


@pytest.mark.parametrize(("layers", "width"), [(4, 384), (6, 512)], ids=["tiny", "base"])
def test_whisper_encoders(sandbox: Sandbox, layers: int, width: int) -> None:
    assert agree(sandbox, lower(regions.encoder(layers, width, 1500)).words) > 1000


def test_streams_of_mlir_aie(sandbox: Sandbox) -> None:
    """Streams that mlir-aie wrote: a dozen of them, spread over the file."""
    cases = json.loads(GOLDEN.read_text())
    for case in cases[:: len(cases) // 12]:
        agree(sandbox, np.array([int(word, 16) for word in case["words"]], np.uint32))


def test_damage_is_noticed(sandbox: Sandbox) -> None:
    """The disassembler refuses an unknown operation, and sees another value where a word was changed."""
    words = lower(regions.single_ops()["gelu"]).words
    unknown = words.copy()
    unknown[4] = 0x7F
    assert isinstance(disassemble(sandbox, unknown), str)
    changed = words.copy()
    changed[8] ^= 0x40  # the length of the first descriptor
    assert disassemble(sandbox, changed) != ours(words)
