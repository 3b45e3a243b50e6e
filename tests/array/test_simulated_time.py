"""The simulator's clock, on a product written by hand: bounds, other clocks, the timeline."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from handmade_product import numpy_kernels, product, run

from torch_xdna.devices.array import Simulator
from torch_xdna.devices.array.shim import Channel, Shim
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.time.costs import Costs


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


def test_a_push_onto_an_idle_channel_holds_up_the_next_push(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other records go on meanwhile: 3050 cycles from push to push, 700 after one onto a channel that has streams."""
    pushed: list[tuple[float, str, bool]] = []
    push = Shim.push

    def noted(self: Shim, channel: Channel, value: int, *rest: object) -> None:
        pushed.append((channel.context.engine.now, channel.name, bool(channel.queue)))
        push(self, channel, value, *rest)

    monkeypatch.setattr(Shim, "push", noted)
    costs = Costs(clock_ghz=1.6)
    run(product(), Simulator(overlay(4), kernels=numpy_kernels(), costs=costs))
    assert [(name, busy) for _, name, busy in pushed[:5]] == [
        ("column 0 S2MM 0", False),
        ("column 0 MM2S 0", False),
        ("column 0 MM2S 0", True),
        ("column 0 MM2S 1", False),
        ("column 1 S2MM 0", False),
    ]
    times = [time for time, *_ in pushed]
    first = 12 * costs.controller_cycles("maskwrite") + costs.task_cycles - costs.write32
    assert times[0] == pytest.approx(first)
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps[:4] == pytest.approx([costs.push_cold, costs.push_cold, costs.task_cycles, costs.push_cold])


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
