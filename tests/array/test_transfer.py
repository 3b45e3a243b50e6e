"""Descriptors' registers against their definition, word by word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_xdna.devices.array.arguments import PENDING, SETTLED, Argument, Cursor, overlap
from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.devices.array.transfer import Transfer, parse
from torch_xdna.lowering.commands.commands import BlockWrite, Dma
from torch_xdna.lowering.commands.decode import records
from torch_xdna.lowering.commands.encode import encode
from torch_xdna.lowering.commands.registers import MM2S

WORDS = 1 << 14


def by_definition(words: list[int], base: int, repeats: int) -> list[int]:
    """What the register description says, one word after another."""
    length, dim0, dim1, dim2, iteration = words[0], words[3], words[4], words[5], words[6]
    wrap0, wrap1 = dim0 >> 20 & 0x3FF, dim1 >> 20 & 0x3FF
    step0, step1, step2 = ((d & 0xFFFFF) + 1 for d in (dim0, dim1, dim2))
    count, current, outer = (iteration >> 20 & 0x3F) + 1, iteration >> 26, (iteration & 0xFFFFF) + 1
    found = []
    for _ in range(repeats):
        i0 = i1 = i2 = 0
        for _ in range(length):
            found.append(base + current * outer + i0 * step0 + i1 * step1 + i2 * step2)
            i0 += 1
            if wrap0 and i0 == wrap0:
                i0, i1 = 0, i1 + 1
                if wrap1 and i1 == wrap1:
                    i1, i2 = 0, i2 + 1
        current = (current + 1) % count
    return found


@st.composite
def descriptors(draw: st.DrawFn) -> tuple[list[int], int, int]:
    length = draw(st.integers(1, 60))
    dims = [draw(st.integers(0, 9)) << 20 | draw(st.integers(0, 30)) for _ in range(2)]
    count = draw(st.integers(0, 5))
    iteration = draw(st.integers(0, count)) << 26 | count << 20 | draw(st.integers(0, 100))
    words = [length, 0, 0, dims[0], dims[1], draw(st.integers(0, 60)), iteration, 1 << 25]
    return words, draw(st.integers(0, 50)), draw(st.integers(1, 7))


@settings(max_examples=300, deadline=None)
@given(descriptors())
def test_any_registers(made: tuple[list[int], int, int]) -> None:
    words, base, repeats = made
    transfer, after = parse(words, 4 * base, repeats, "")
    expected = by_definition(words, base, repeats)
    assert transfer.indices().tolist() == expected
    starts, run = transfer.runs()
    assert [s + i for s in starts for i in range(run)] == expected
    assert transfer.extent == (min(expected), max(expected) + 1)
    touched = np.zeros(WORDS, dtype=np.uint8)
    for view in transfer.select(touched):
        view[...] = 1
    assert set(np.flatnonzero(touched).tolist()) == set(expected)
    count = (words[6] >> 20 & 0x3F) + 1
    assert after >> 26 == ((words[6] >> 26) + repeats) % count


@settings(max_examples=100, deadline=None)
@given(descriptors(), descriptors())
def test_overlap(first: tuple, second: tuple) -> None:
    a, b = (parse(w, 4 * base, repeats, "")[0] for w, base, repeats in (first, second))
    assert overlap(a, b) == bool(set(a.indices().tolist()) & set(b.indices().tolist()))


@settings(max_examples=60, deadline=None)
@given(descriptors(), st.integers(1, 17), st.booleans())
def test_moving_in_pieces(made: tuple, piece: int, to_memory: bool) -> None:
    words, base, repeats = made
    transfer, _ = parse(words, 4 * base, repeats, "")
    memory = np.arange(WORDS, dtype=np.uint32)
    buffer = np.arange(transfer.words, dtype=np.uint32) + 1_000_000
    expected_memory, expected_buffer = memory.copy(), buffer.copy()
    for i, index in enumerate(transfer.indices().tolist()):
        if to_memory:
            expected_memory[index] = buffer[i]
        else:
            expected_buffer[i] = memory[index]
    cursor = Cursor(Argument(0, memory.view(np.uint8), None), transfer)
    for start in range(0, transfer.words, piece):
        count = min(piece, transfer.words - start)
        cursor.move(buffer.ctypes.data + 4 * start, count, to_memory)
    assert np.array_equal(memory, expected_memory) and np.array_equal(buffer, expected_buffer)


def test_the_encoder_and_the_simulator_mean_the_same() -> None:
    dma = Dma(1, MM2S, 0, 3, 0, 100, (3, 2, 4, 8), (50, 600, 40, 1))
    block = records(encode([dma]))[0]
    assert isinstance(block, BlockWrite)
    transfer, _ = parse(list(block.words), 4 * 100, 3, "")
    expected = [
        100 + 50 * i + 600 * j + 40 * k + n
        for i in range(3)
        for j in range(2)
        for k in range(4)
        for n in range(8)
    ]
    assert transfer.indices().tolist() == expected


def test_state_of_memory() -> None:
    argument = Argument(1, np.zeros(400, dtype=np.uint8), [(0, 80)])
    inside, across, outside = (Transfer((b,), (1, 1, 10), (1, 1, 1), 10) for b in (5, 15, 30))
    argument.check_settled(inside, "x", str)
    for bad in (across, outside):
        with pytest.raises(HardwareFault, match="that nothing has written"):
            argument.check_settled(bad, "x", str)
    argument.begin_write(outside, raced=False)
    assert (argument.state[30:40] == PENDING).all()
    with pytest.raises(HardwareFault, match="nobody waited for task y"):
        argument.check_settled(outside, "x", lambda: "task y")
    argument.end_write(outside)
    assert argument.settled(120, 40) and not argument.settled(116, 44)
    argument.check_settled(outside, "x", str)
    argument.begin_write(outside, raced=False)
    argument.begin_write(outside, raced=True)
    argument.end_write(outside)
    with pytest.raises(HardwareFault, match="in no certain order"):
        argument.check_settled(outside, "x", str)
    assert (argument.state[:20] == SETTLED).all()
    with pytest.raises(ValueError, match="not within"):
        Argument(1, np.zeros(400, dtype=np.uint8), [(396, 8)])


def test_out_of_range() -> None:
    argument = Argument(0, np.zeros(400, dtype=np.uint8), None)
    with pytest.raises(HardwareFault, match=r"touches bytes 380 to 420 of argument 0, which has 400"):
        argument.check_inside(Transfer((95,), (1, 1, 10), (1, 1, 1), 10), "x")
