"""Regions in several dispatches: the same bits as in one, and none that takes longer than it may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import torch_xdna
from torch_xdna.devices import select
from torch_xdna.devices.array import Simulator
from torch_xdna.lowering import listing, lower
from torch_xdna.lowering.commands.commands import Dma
from torch_xdna.lowering.errors import LimitError
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.program import Program
from torch_xdna.lowering.streams.split import LONGEST_S, SLOWEST_GHZ, layer
from torch_xdna.lowering.time.costs import Costs
from torch_xdna.lowering.whisper import encoder_config, encoder_region
from torch_xdna.selftest.cases import Case, encoder
from torch_xdna.settings import Settings

TWO_LAYERS = Case("two layers", encoder(2, 128, 200))


def on_the_array(program: Program, case: Case) -> list[np.ndarray]:
    """With the memory's checks: what a dispatch reads, one before it has written."""
    activations = np.full(program.activations_bytes, 0xFF, np.uint8)
    program.pack_inputs(case.inputs, activations)
    Simulator(overlay(program.columns)).run_all(
        program.dispatches,
        [program.pack_weights(case.params), activations],
        [None, program.input_ranges],
        [[], program.result_ranges],
    )
    return program.unpack_outputs(activations)


def tokens(program: Program) -> int:
    return sum(isinstance(command, Dma) and command.issue_token for command in program.commands)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_same_bits(columns: int) -> None:
    whole = lower(TWO_LAYERS.region, columns=columns)
    expected = on_the_array(whole, TWO_LAYERS)
    assert len(whole.dispatches) == 1
    for split, count in (("layer", 3), ("op", len(whole.steps))):
        program = lower(TWO_LAYERS.region, columns=columns, split=split)
        assert len(program.dispatches) == count and tokens(program) == tokens(whole)
        longest = max(words.size for words in program.dispatches)
        assert longest < 0.55 * whole.words.size, "a dispatch is not shorter"
        for a, b in zip(on_the_array(program, TWO_LAYERS), expected, strict=True):
            assert np.array_equal(a, b)


def test_layers_by_name() -> None:
    names = (
        "layers.0.fc1",
        "model.encoder.layers.12.self_attn.q_proj+k_proj",
        "0.norm1",
        "conv1 even rows",
        "",
        "3",
    )
    assert [layer(name) for name in names] == ["layers.0", "model.encoder.layers.12", "0", "", "", "3"]  # fmt: skip


@pytest.mark.parametrize("columns", [1, 4])
def test_the_time_of_each_dispatch_is_limited(columns: int) -> None:
    """By the model that cuts and, but for its error, by the simulator's clock."""
    case = Case("one layer", encoder(1, 256, 600))
    costs = Costs(SLOWEST_GHZ, stock_kernels=True)  # the slow rates, which the model that cuts has
    simulator = Simulator(overlay(columns), costs=costs, kernels=False)

    def seconds(program: Program) -> list[float]:
        arguments = [program.pack_weights(case.params), np.zeros(program.activations_bytes, np.uint8)]
        return [run.modelled_seconds for run in simulator.run_all(program.dispatches, arguments)]

    (whole,) = seconds(lower(case.region, columns=columns))
    limit = whole / 2
    split = lower(case.region, columns=columns, longest_s=limit)
    assert 2 <= len(split.dispatches) <= 5
    assert max(seconds(split)) < 1.15 * limit
    with pytest.raises(LimitError, match=r"run time: \w+ 0\..* is modelled .* fewer rows"):
        lower(case.region, columns=columns, longest_s=whole / 20)


def test_the_largest_encoder_is_split_by_itself() -> None:
    """large-v3 at the slowest clock takes longer than a run that surely isn't killed; base does not."""
    assert len(lower(encoder_region(encoder_config("base"))).dispatches) == 1
    large = encoder_region(encoder_config("large"))
    program = lower(large)
    assert len(program.dispatches) == 2
    with pytest.raises(ValueError):
        program.words  # noqa: B018
    assert LONGEST_S == 2.0 and "2 dispatches" in listing.summary(program)


def test_an_op_that_takes_too_long_is_refused() -> None:
    region = TWO_LAYERS.region
    long = replace(region.values[0], rows=64 << 14)
    values = (long, *(replace(v, rows=long.rows) for v in region.values[1:]))
    with pytest.raises(LimitError, match="run time: attention"):
        lower(replace(region, values=values))


def test_the_option() -> None:
    assert Settings.from_options({"split": "layer"}).split == "layer"
    with pytest.raises(torch_xdna.errors.SettingsError, match="did you mean 'layer'"):
        Settings.from_options({"split": "layers"})
    with pytest.raises(ValueError, match="'layer' or 'op'"):
        lower(TWO_LAYERS.region, split="column")
    assert len(select("array", split="layer").prepare(TWO_LAYERS.region).program.dispatches) == 3  # type: ignore[attr-defined]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(130, 200), torch.nn.GELU(), torch.nn.LayerNorm(200)).eval()
    x = torch.randn(2, 100, 130)
    outputs = []
    for split in (None, "op"):
        torch._dynamo.reset()
        with torch.no_grad():
            compiled = torch.compile(model, backend="xdna", options={"device": "array", "split": split})
            outputs.append(compiled(x))
        (report,) = torch_xdna.reports()
        assert report.dispatches_per_call == report.per_call()["dispatches"] == (2 if split else 1)
        assert report.dispatches == 2 * report.dispatches_per_call, "two clips"
        assert ("2 dispatches per call" in str(report)) == bool(split)
    assert torch.equal(*outputs)
