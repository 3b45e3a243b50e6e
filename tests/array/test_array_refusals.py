"""What the simulator refuses, each with command, column, channel and descriptor in its sentence."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from handmade_product import BLOCK_WORDS, first, numpy_kernels, product, refusal, run

from torch_xdna.devices.array import HardwareFault, Simulator
from torch_xdna.lowering.commands.commands import (
    AddressPatch,
    BlockWrite,
    Dma,
    MaskWrite,
    Wait,
    Write32,
    token_id,
)
from torch_xdna.lowering.commands.registers import MM2S, S2MM
from torch_xdna.lowering.overlay import overlay


def test_fifth_task_on_a_queue() -> None:
    made = product()
    i = first(made, MM2S, 2, 1)
    made.commands[i + 1 : i + 1] = [dataclasses.replace(made.commands[i], bd=9 + n) for n in range(4)]
    text = refusal(made, "queue")
    assert f"command {i + 4} (column 2 MM2S 1, descriptor 12) is the fifth task" in text
    assert f"commands {i}, {i + 1}, {i + 2}, {i + 3} are not known to be complete" in text


def test_a_task_that_only_time_has_completed_still_counts() -> None:
    """The fifth task comes long after the first must have ended, but nothing in the stream proves it."""
    made = product(k_blocks=8)
    panel = made.commands[first(made, MM2S, 0, 1)]
    more = [dataclasses.replace(panel, bd=9 + n) for n in range(4)]
    waits = [Wait(c, S2MM, 0) for c in (1, 2, 3)]  # by then column 0 is as good as done, too
    made.commands = [*made.commands[:-4], *waits, *more, Wait(0, S2MM, 0)]
    assert "(column 0 MM2S 1, descriptor 12) is the fifth task" in refusal(made, "queue")


def test_results_of_one_column_prove_what_its_rows_and_its_column_have_read() -> None:
    """Column 1's results need the A objects of every row, so column 0's A channel has room again; its B has not."""
    made = product(k_blocks=2)
    header = made.commands[first(made, MM2S, 0, 0)]
    again = [dataclasses.replace(header, bd=9 + n) for n in range(4)]
    made.commands = [*made.commands[:-4], Wait(1, S2MM, 0), *again, *(Wait(c, S2MM, 0) for c in (0, 2, 3))]
    refusal(made, "leftover")  # four headers are too many for the program, not for the queue


def test_descriptor_rewritten_in_flight() -> None:
    made = product()
    i = first(made, MM2S, 1, 1)
    made.commands.insert(i + 1, dataclasses.replace(made.commands[i]))
    text = refusal(made, "descriptor")
    assert (
        f"command {i + 1} (column 1) rewrites descriptor 4, but command {i} (column 1 MM2S 1, descriptor 4)"
        in text
    )


def test_a_token_of_a_result_frees_the_descriptors_of_what_went_into_it() -> None:
    """No token on the reads: that the results are there proves that the inputs were read."""
    first, second = product(seed=1), product(seed=1)
    first.commands += second.commands
    run(first)
    np.testing.assert_allclose(first.result(), first.expected, rtol=2**-7, atol=0.05)


def test_too_many_live_descriptors() -> None:
    """With 2 MM2S and 1 S2MM channel of 4 tasks at most 12 can be live: only a deeper queue reaches the limit."""
    made = product()
    from torch_xdna.devices.array import shim

    deep = dataclasses.replace(shim.limits.SHIM_QUEUE, maximum=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shim.limits, "SHIM_QUEUE", deep)
        i = first(made, MM2S, 0, 0)
        made.commands[i:i] = [
            dataclasses.replace(made.commands[i], bd=n) for n in (*range(1, 4), *range(5, 16)) if n != 8
        ]
        text = refusal(made, "live")
    assert "makes 15 live descriptors, 14 are safe" in text


def test_a_stream_without_token_ids_is_refused() -> None:
    """As written before routes were known: on hardware its first wait would never end."""
    made = product()
    made.commands = [c for c in made.commands if not isinstance(c, MaskWrite)]
    text = refusal(made, "token")
    assert "command 0 (column 0 S2MM 0) asks for a token, but the token id of that channel is 0" in text
    assert "only id 15 reaches the controller" in text


@pytest.mark.parametrize("column", range(4))
def test_one_missing_token_id_is_named(column: int) -> None:
    made = product()
    made.commands.remove(token_id(column, S2MM, 0))
    assert f"(column {column} S2MM 0) asks for a token" in refusal(made, "token")


def test_a_token_id_of_an_earlier_run_is_not_relied_on() -> None:
    simulator = Simulator(overlay(4), kernels=numpy_kernels())
    run(product(), simulator)
    made = product()
    made.commands = made.commands[12:]
    with pytest.raises(HardwareFault, match="since this stream has not set it"):
        run(made, simulator)


def test_the_wrong_token_id_and_one_that_changes_in_flight() -> None:
    made = product()
    made.commands[0] = token_id(0, S2MM, 0, 26)
    assert "the token id of that channel is 26: only id 15" in refusal(made, "token")
    made = product()
    made.commands.insert(first(made, S2MM) + 1, token_id(0, S2MM, 0, 26))
    assert "changes the token id of column 0 S2MM 0 while nobody has waited" in refusal(made, "token")


def test_transfers_without_tokens_need_no_id() -> None:
    made = product()
    made.commands = [
        c for c in made.commands if c not in [token_id(i, MM2S, n) for i in range(4) for n in (0, 1)]
    ]
    run(made)
    np.testing.assert_allclose(made.result(), made.expected, rtol=2**-7, atol=0.05)


def test_token_that_nobody_waits_for() -> None:
    made = product()
    made.commands.remove(Wait(3, S2MM, 0))
    i = first(made, S2MM, 3)
    assert f"command {i} (column 3 S2MM 0, descriptor 8) issues a token that nobody waits for" in refusal(
        made, "token"
    )


def test_token_that_was_never_issued() -> None:
    made = product()
    made.commands.append(Wait(1, MM2S, 0))
    last = len(made.commands) - 1
    text = refusal(made, "token")
    assert f"command {last} waits for a token of column 1 MM2S 0 that was never issued" in text


def test_reading_what_nobody_wrote() -> None:
    made = product()
    i = first(made, MM2S, 2, 0) + 1
    made.commands[i] = dataclasses.replace(made.commands[i], offset=made.output // 4)
    text = refusal(made, "read")
    assert f"command {i} (column 2 MM2S 0, descriptor 1) reads what is still being written" in text
    write = first(made, S2MM)
    assert f"nobody waited for command {write} (column 0 S2MM 0, descriptor 8)" in text
    del made.commands[write]
    assert "reads what is still being written" in refusal(made, "read")


def test_reading_results_before_they_were_waited_for() -> None:
    made = product()
    header = made.commands[first(made, MM2S, 0, 0)]
    reader = dataclasses.replace(
        header, bd=9, arg=1, offset=made.output // 4 + BLOCK_WORDS
    )  # column 1's block
    made.commands.insert(-3, reader)  # after the wait for column 0
    write = first(made, S2MM, 1)
    assert f"nobody waited for command {write} (column 1 S2MM 0, descriptor 8)" in refusal(made, "read")
    made.commands[-4], made.commands[-3] = made.commands[-3], reader  # after that for column 1
    refusal(made, "header")  # it may be read now, and is no header


def test_memory_beyond_the_argument() -> None:
    made = product()
    i = first(made, MM2S, 0, 1)
    made.commands[i] = dataclasses.replace(made.commands[i], offset=made.weights.nbytes // 4 - BLOCK_WORDS)
    text = refusal(made, "address")
    assert (
        f"command {i} (column 0 MM2S 1, descriptor 4) touches bytes" in text
        and "argument 0, which has" in text
    )


def test_an_argument_that_does_not_exist() -> None:
    made = product()
    i = first(made, MM2S, 0, 1)
    made.commands[i] = dataclasses.replace(made.commands[i], arg=2)
    assert "uses argument 2, there are 2" in refusal(made, "address")


def test_overwriting_what_is_being_read() -> None:
    made = product()
    write, i = first(made, S2MM), first(made, MM2S, 0, 0) + 1
    made.commands.append(
        dataclasses.replace(made.commands.pop(write), offset=0)
    )  # the write comes after the reads of the same memory
    made.commands.insert(-5, made.commands.pop())
    text = refusal(made, "write")
    assert f"writes memory that command {i - 1} (column 0 MM2S 0, descriptor 1) reads" in text


def test_deadlock_names_who_waits_for_whom() -> None:
    made = product()
    i = first(made, MM2S, 1, 1)
    del made.commands[i]
    text = refusal(made, "deadlock")
    assert "waits for the token of command" in text
    assert "core (row 2, column 1) waits for 1 objects of B_col1 (has 0), column 1 MM2S 1 has no task" in text
    assert "at gemm: b = acquire B (o = 0, k = 0)" in text


def test_unknown_op_in_a_header() -> None:
    made = product()
    made.weights[:4].view(np.int32)[0] = 9
    assert "core (row 0, column 0) got a header with unknown op 9" in refusal(made, "header")


def test_an_endless_header() -> None:
    made = product()
    made.weights[:128].view(np.int32)[2] = 1 << 20
    assert "whose word 2 asks for 1048576 trips" in refusal(made, "header")


def test_data_that_no_core_takes() -> None:
    made = product()
    i = first(made, MM2S, 0, 1)
    made.commands.insert(i + 1, Dma(0, MM2S, 1, 5, 0, 0, (1, 1, 1, BLOCK_WORDS), (0, 0, 0, 1)))
    assert "at the stream's end" in refusal(made, "leftover")


def test_part_of_an_object() -> None:
    made = product()
    i = first(made, MM2S, 0, 1)
    made.commands.insert(i + 1, Dma(0, MM2S, 1, 5, 0, 0, (1, 1, 1, 100), (0, 0, 0, 1)))
    assert "column 0 MM2S 1 has moved only part of an object" in refusal(made, "leftover")


def test_an_op_without_an_end() -> None:
    made = product()
    made.weights[:128].view(np.int32)[1] += 1
    assert "at the stream's end core (row 0, column 0) is in the middle of an op: gemm" in refusal(
        made, "leftover"
    )


@pytest.mark.parametrize(
    ("records", "kind", "says"),
    [
        ([Write32(0, 2, 0x1D214, 0)], "register", "writes a register of tile (0, 2)"),
        ([Write32(3, 0, 0x1D204 + 0x1000, 0)], "register", "0x1e204"),
        ([Write32(0, 0, 0x1D20C, 0)], "register", "column 0 S2MM 1, where nothing is connected"),
        ([token_id(0, S2MM, 1)], "register", "column 0 S2MM 1, where nothing is connected"),
        ([MaskWrite(0, 0, 0x1D210, 0xF00, 0xFFFF)], "register", "only a channel's token id is known"),
        ([MaskWrite(0, 0, 0x1D214, 0xF00, 0x1F00)], "register", "only a channel's token id is known"),
        ([Write32(0, 0, 0x1D214, 1 << 20 | 5)], "descriptor", "has no address"),
        ([BlockWrite(0, 0, 0x1D000, (1, 0, 0, 0, 0, 0, 0, 0)), AddressPatch(0, 0, 0x1D004, 0, 0),
          Write32(0, 0, 0x1D214, 0)], "descriptor", "not valid: its valid bit is 0"),
        ([BlockWrite(0, 0, 0x1D000, (1, 0, 0, 0, 0, 0, 0, 3 << 25)), AddressPatch(0, 0, 0x1D004, 0, 0),
          Write32(0, 0, 0x1D214, 0)], "descriptor", "uses locks or chaining"),
        ([BlockWrite(0, 0, 0x1D000, (1, 0, 1 << 30, 0, 0, 0, 0, 1 << 25)), AddressPatch(0, 0, 0x1D004, 0, 0),
          Write32(0, 0, 0x1D214, 0)], "descriptor", "sends packets"),
        ([BlockWrite(0, 0, 0x1D010, (0,) * 8)], "register", "across two descriptors"),
        ([AddressPatch(0, 0, 0x1D008, 0, 0)], "register", "patches word 2"),
    ],
)  # fmt: skip
def test_bad_registers(records: list, kind: str, says: str) -> None:
    made = product()
    made.commands = [*records, *made.commands]
    assert says in refusal(made, kind)


def test_columns_that_the_overlay_does_not_have() -> None:
    made = product(2)
    made.commands.insert(0, Dma(3, MM2S, 0, 0, 0, 0, (1, 1, 1, BLOCK_WORDS), (0, 0, 0, 1)))
    assert "names column 3, the overlay has 2" in refusal(made, "register")
