"""The simulator on products written by hand: right results, kept state, any order of events."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from handmade_product import BLOCK_BYTES, BLOCK_WORDS, first, numpy_kernels, product, refusal, run

from torch_xdna.devices.array import HardwareFault, Simulator, execute
from torch_xdna.lowering.commands.commands import Dma
from torch_xdna.lowering.commands.encode import encode
from torch_xdna.lowering.commands.registers import MM2S, S2MM
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.time.costs import Costs


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
    with pytest.raises(HardwareFault):
        run(bad, simulator)
    run(good, simulator)
    np.testing.assert_allclose(good.result(), good.expected, rtol=2**-7, atol=0.05)
    assert simulator.configurations == 2


def test_results_that_were_not_written() -> None:
    made = product()
    i = first(made, S2MM)
    made.commands[i] = dataclasses.replace(made.commands[i], offset=made.commands[i].offset + BLOCK_WORDS)
    assert "of the results were not all written" in refusal(made, "result")


def test_repeats_and_iterations_move_the_same_words() -> None:
    """G panels by repeating a descriptor, or by pushing it again: the same objects."""
    repeated, pushed = product(seed=3), product(seed=3)
    for c in range(4):
        i = first(pushed, MM2S, c, 1)
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
        from torch_xdna.lowering.overlay import overlay
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
