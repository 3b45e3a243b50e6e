"""The simulator on small programs: right results, kept state, time without data, and every refusal with its place."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from handmade_product import BLOCK_BYTES, BLOCK_WORDS, Product, numpy_kernels, product

from lowering.instructions import MM2S, S2MM, AddressPatch, BlockWrite, Dma, Wait, Write32, encode
from lowering.overlay import overlay
from lowering.time.costs import Costs
from torch_xdna.devices.array import Refusal, RunStats, Simulator, execute


def run(made: Product, simulator: Simulator | None = None, **options: object) -> RunStats:
    simulator = simulator or Simulator(overlay(made.columns), kernels=numpy_kernels())
    results = [[], [(made.output, made.activations.nbytes - made.output)]]
    return simulator.run(made.words, [made.weights, made.activations], made.written, results, **options)


def refusal(made: Product, kind: str) -> str:
    with pytest.raises(Refusal) as caught:
        run(made)
    assert caught.value.kind == kind, caught.value
    return str(caught.value)


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("k_blocks", [1, 5])
def test_a_product_written_by_hand(columns: int, k_blocks: int) -> None:
    made = product(columns, k_blocks=k_blocks)
    run(made)
    np.testing.assert_allclose(
        made.result(), made.expected, rtol=2**-8, atol=1e-5 * np.abs(made.expected).max()
    )


def test_columns_use_only_their_own_cores() -> None:
    made = product(2)
    stats = run(made)
    assert len(stats.core_busy) == 8 and min(stats.core_busy) > 0
    assert stats.bytes_moved == sum(d.bytes for d in made.commands if isinstance(d, Dma))


def test_state_is_kept_and_a_second_run_gives_the_same_bits() -> None:
    simulator = Simulator(overlay(4), kernels=numpy_kernels())
    first, again, other = product(seed=1), product(seed=1), product(seed=2, k_blocks=2)
    for made in (first, other, again):
        run(made, simulator)
    assert np.array_equal(first.activations, again.activations)
    assert simulator.configurations == 1 and simulator.runs == 3


def test_after_a_refusal_the_array_is_configured_anew() -> None:
    simulator = Simulator(overlay(4), kernels=numpy_kernels())
    bad, good = product(), product()
    bad.commands.pop()
    with pytest.raises(Refusal):
        run(bad, simulator)
    run(good, simulator)
    np.testing.assert_allclose(good.result(), good.expected, rtol=2**-7, atol=0.05)
    assert simulator.configurations == 2


# Time


def test_time_without_data_is_the_same_time() -> None:
    made = product()
    with_data = run(made)
    before = made.activations.copy()
    alone = Simulator(overlay(4), kernels=False).run(
        made.words, [made.weights, made.activations], made.written
    )
    assert (alone.cycles, alone.events, alone.kernel_calls) == (
        with_data.cycles, with_data.events, with_data.kernel_calls,
    )  # fmt: skip
    assert not np.array_equal(before, made.activations)  # objects moved, results were not computed


def test_time_is_bounded_by_what_must_happen() -> None:
    made = product(k_blocks=8)
    stats = run(made)
    costs = Costs(clock_ghz=1.6)
    kernels = max(stats.core_busy)
    assert kernels >= 2 * 8 * costs.kernel_cycles("gemm_step")
    assert stats.cycles > kernels
    assert stats.cycles < kernels + 60_000  # everything else overlaps, but for the beginning and the end
    assert stats.modelled_seconds == pytest.approx(stats.cycles / 1.6e9)


def test_another_clock_changes_only_what_the_memory_adds() -> None:
    cycles = []
    for clock in (0.8, 1.6, 100.0):
        made = product()
        simulator = Simulator(overlay(4), kernels=numpy_kernels(), costs=Costs(clock_ghz=clock))
        cycles.append(run(made, simulator).cycles)
    assert cycles[0] <= cycles[1] < cycles[2]  # a fast core waits longer for the same memory


def test_trace_opens_as_a_timeline(tmp_path: Path) -> None:
    stats = run(product(), trace=True)
    assert stats.trace is not None
    stats.trace.save(tmp_path / "trace.json", stats.clock_ghz)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {e["args"]["name"] for e in events if e["ph"] == "M"}
    assert {"core (row 3, column 2)", "A_row1", "B_col0", "column 3 S2MM 0"} <= names
    spans = [e for e in events if e["ph"] == "X"]
    assert sum("gemm_step" in e["name"] for e in spans) == 16 * 2 * 3
    assert all(e["dur"] >= 0 for e in spans)
    by_track: dict[int, float] = {}
    for e in sorted(spans, key=lambda e: e["ts"]):
        assert e["ts"] >= by_track.get(e["tid"], 0.0) - 1e-6, "two things at once on one track"
        by_track[e["tid"]] = e["ts"] + e["dur"]


# Refusals: each names command, column, channel and descriptor


def _first(made: Product, direction: str, column: int = 0, channel: int = 0) -> int:
    return next(
        i for i, c in enumerate(made.commands)
        if isinstance(c, Dma) and (c.direction, c.column, c.channel) == (direction, column, channel)
    )  # fmt: skip


def test_fifth_task_on_a_queue() -> None:
    made = product()
    i = _first(made, MM2S, 2, 1)
    made.commands[i + 1 : i + 1] = [dataclasses.replace(made.commands[i], bd=9 + n) for n in range(4)]
    text = refusal(made, "queue")
    assert f"command {i + 4} (column 2 MM2S 1, descriptor 12) is the fifth task" in text
    assert f"commands {i}, {i + 1}, {i + 2}, {i + 3} are not known to be complete" in text


def test_a_task_that_only_time_has_completed_still_counts() -> None:
    """The fifth task comes long after the first must have ended, but nothing in the stream proves it."""
    made = product(k_blocks=8)
    panel = made.commands[_first(made, MM2S, 0, 1)]
    more = [dataclasses.replace(panel, bd=9 + n) for n in range(4)]
    waits = [Wait(c, S2MM, 0) for c in (1, 2, 3)]  # by then column 0 is as good as done, too
    made.commands = [*made.commands[:-4], *waits, *more, Wait(0, S2MM, 0)]
    assert "(column 0 MM2S 1, descriptor 12) is the fifth task" in refusal(made, "queue")


def test_results_of_one_column_prove_what_its_rows_and_its_column_have_read() -> None:
    """Column 1's results need the A objects of every row, so column 0's A channel has room again; its B has not."""
    made = product(k_blocks=2)
    header = made.commands[_first(made, MM2S, 0, 0)]
    again = [dataclasses.replace(header, bd=9 + n) for n in range(4)]
    made.commands = [*made.commands[:-4], Wait(1, S2MM, 0), *again, *(Wait(c, S2MM, 0) for c in (0, 2, 3))]
    refusal(made, "leftover")  # four headers are too many for the program, not for the queue


def test_descriptor_rewritten_in_flight() -> None:
    made = product()
    i = _first(made, MM2S, 1, 1)
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
        i = _first(made, MM2S, 0, 0)
        made.commands[i:i] = [
            dataclasses.replace(made.commands[i], bd=n) for n in (*range(1, 4), *range(5, 16)) if n != 8
        ]
        text = refusal(made, "live")
    assert "makes 15 live descriptors, 14 are safe" in text


def test_token_that_nobody_waits_for() -> None:
    made = product()
    made.commands.remove(Wait(3, S2MM, 0))
    i = _first(made, S2MM, 3)
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
    i = _first(made, MM2S, 2, 0) + 1
    made.commands[i] = dataclasses.replace(made.commands[i], offset=made.output // 4)
    text = refusal(made, "read")
    assert f"command {i} (column 2 MM2S 0, descriptor 1) reads what is still being written" in text
    assert "nobody waited for command 0 (column 0 S2MM 0, descriptor 8)" in text
    made.commands = [c for c in made.commands if c is not made.commands[0]]
    assert "reads what is still being written" in refusal(made, "read")


def test_reading_results_before_they_were_waited_for() -> None:
    made = product()
    header = made.commands[_first(made, MM2S, 0, 0)]
    reader = dataclasses.replace(
        header, bd=9, arg=1, offset=made.output // 4 + BLOCK_WORDS
    )  # column 1's block
    made.commands.insert(-3, reader)  # after the wait for column 0
    assert "nobody waited for command 4 (column 1 S2MM 0, descriptor 8)" in refusal(made, "read")
    made.commands[-4], made.commands[-3] = made.commands[-3], reader  # after that for column 1
    refusal(made, "header")  # it may be read now, and is no header


def test_memory_beyond_the_argument() -> None:
    made = product()
    i = _first(made, MM2S, 0, 1)
    made.commands[i] = dataclasses.replace(made.commands[i], offset=made.weights.nbytes // 4 - BLOCK_WORDS)
    text = refusal(made, "address")
    assert (
        f"command {i} (column 0 MM2S 1, descriptor 4) touches bytes" in text
        and "argument 0, which has" in text
    )


def test_an_argument_that_does_not_exist() -> None:
    made = product()
    i = _first(made, MM2S, 0, 1)
    made.commands[i] = dataclasses.replace(made.commands[i], arg=2)
    assert "uses argument 2, there are 2" in refusal(made, "address")


def test_overwriting_what_is_being_read() -> None:
    made = product()
    made.commands[0], i = dataclasses.replace(made.commands[0], offset=0), _first(made, MM2S, 0, 0) + 1
    made.commands.append(made.commands.pop(0))  # the write comes after the reads of the same memory
    made.commands.insert(-5, made.commands.pop())
    text = refusal(made, "write")
    assert f"writes memory that command {i - 1} (column 0 MM2S 0, descriptor 1) reads" in text


def test_deadlock_names_who_waits_for_whom() -> None:
    made = product()
    i = _first(made, MM2S, 1, 1)
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
    i = _first(made, MM2S, 0, 1)
    made.commands.insert(i + 1, Dma(0, MM2S, 1, 5, 0, 0, (1, 1, 1, BLOCK_WORDS), (0, 0, 0, 1)))
    assert "at the stream's end" in refusal(made, "leftover")


def test_part_of_an_object() -> None:
    made = product()
    i = _first(made, MM2S, 0, 1)
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


def test_results_that_were_not_written() -> None:
    made = product()
    made.commands[0] = dataclasses.replace(made.commands[0], offset=made.commands[0].offset + BLOCK_WORDS)
    assert "of the results were not all written" in refusal(made, "result")


def test_repeats_and_iterations_move_the_same_words() -> None:
    """G panels by repeating a descriptor, or by pushing it again: the same objects."""
    repeated, pushed = product(seed=3), product(seed=3)
    for c in range(4):
        i = _first(pushed, MM2S, c, 1)
        dma = pushed.commands[i]
        once = dataclasses.replace(dma, sizes=(1, *dma.sizes[1:]))
        pushed.commands[i : i + 1] = [once, dataclasses.replace(once, bd=dma.bd + 1)]
    run(repeated)
    run(pushed)
    assert np.array_equal(repeated.activations, pushed.activations)


def test_arguments_must_be_plain_bytes() -> None:
    made = product()
    with pytest.raises(ValueError, match="argument 0 must be a contiguous 1-D uint8 array"):
        Simulator(overlay(4), kernels=False).run(made.words, [made.weights.view(np.uint16), made.activations])


def test_it_runs_without_torch_and_ml_dtypes() -> None:
    """As an interpreter with numpy only would: the stand-in for the driver in other tests uses it so."""
    code = """
        import sys
        sys.modules["torch"] = sys.modules["ml_dtypes"] = None
        sys.path.insert(0, sys.argv[1])
        from handmade_product import product, numpy_kernels
        from lowering.overlay import overlay
        from torch_xdna.devices.array import Simulator
        made = product()
        Simulator(overlay(4), kernels=numpy_kernels()).run(made.words, [made.weights, made.activations])
        print(abs(made.result() - made.expected).max() < 2**-8 * abs(made.expected).max())
    """
    import textwrap

    command = [sys.executable, "-c", textwrap.dedent(code), str(Path(__file__).parent)]
    assert subprocess.check_output(command, text=True).strip() == "True"


def test_execute_takes_the_columns_from_the_stream() -> None:
    """The entry for whoever plays the hardware: words and buffers, nothing else."""
    for columns in (4, 2):
        made = product(columns)
        stats = execute(encode(made.commands, device_columns=columns), [made.weights, made.activations])
        assert len(stats.core_busy) == 4 * columns
        np.testing.assert_allclose(made.result(), made.expected, rtol=2**-7, atol=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_results_do_not_depend_on_time(seed: int) -> None:
    """Whatever is slow or quick: the same bits, no refusal; only the cycles differ."""
    rng = np.random.default_rng(seed)
    usual = Costs(clock_ghz=1.6)
    names = (
        "mm2s_word",
        "s2mm_word",
        "stream_bytes",
        "read_gbs",
        "write_gbs",
        "write32",
        "blockwrite",
        "object_overhead",
    )
    changed = {name: getattr(usual, name) * float(10 ** rng.uniform(-2, 2)) for name in names}
    first, second = product(seed=1), product(seed=1)
    cycles = run(first).cycles
    other = Simulator(overlay(4), kernels=numpy_kernels(), costs=dataclasses.replace(usual, **changed))
    assert run(second, other).cycles != cycles
    assert np.array_equal(first.activations, second.activations)


def test_words_are_what_is_executed() -> None:
    """Changing the words after encoding changes what runs; the commands are never looked at."""
    made = product()
    words = encode(made.commands)
    words[-1] = 0  # a wait that is for no channel
    with pytest.raises(ValueError, match="this wait is not for one channel of one shim"):
        Simulator(overlay(4), kernels=False).run(words, [made.weights, made.activations])


assert BLOCK_BYTES == 4 * BLOCK_WORDS
