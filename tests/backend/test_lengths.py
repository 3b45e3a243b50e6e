"""A size that Dynamo made symbolic may be a number of tokens: a dispatch of one row for each would be silently slow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torch_xdna
from torch_xdna.devices.emulator import EmulatorDevice
from torch_xdna.lowering.errors import LoweringError

WIDTH = 128


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)
    ).eval()


def _calls(run: Callable, exact: Callable, shapes: list[tuple[int, ...]]) -> list[int]:
    """Dispatches of each call."""
    generator, counts, before = torch.Generator().manual_seed(0), [], 0
    for shape in shapes:
        x = torch.randn(shape, generator=generator)
        found, expected = run(x), exact(x)
        assert (found.shape, found.dtype, found.stride()) == (
            expected.shape,
            expected.dtype,
            expected.stride(),
        )
        assert (found - expected).abs().max() / expected.abs().max() < 0.02, shape
        now = sum(r.dispatches for r in torch_xdna.reports())
        counts.append(now - before)
        before = now
    return counts


def _on_array(fn: Callable) -> Callable:
    return torch.compile(fn, backend="xdna", options={"device": "array"})


@torch.no_grad()
def test_a_linear_layer_of_changing_lengths_is_one_dispatch() -> None:
    """(It was a dispatch of one row for each token from the second length on.)"""
    module = _mlp()
    counts = _calls(_on_array(module), module, [(1, n, WIDTH) for n in (5, 9, 33, 70, 200)])
    assert max(counts) == 1, counts
    rows = [row for report in torch_xdna.reports() for row in report.rows]
    assert any("any length" in row.reason for row in rows)
    assert all(row.where == "device" for row in rows)


@torch.no_grad()
@pytest.mark.parametrize("batch", [2, 3, 16])
def test_time_first(batch: int) -> None:
    """(time, batch, features), as torch's own transformer layers take it by default."""
    module = _mlp()
    counts = _calls(_on_array(module), module, [(n, batch, WIDTH) for n in (5, 9, 40, 61)])
    assert counts[1:] == [1, 1, 1], counts  # the first call's sizes are fixed: a batch of 5


@torch.no_grad()
def test_few_clips_of_several_rows_are_a_batch() -> None:
    """Their program is the one that a fixed batch has, which is not made again."""
    module = nn.Linear(WIDTH, 64).eval()
    counts = _calls(_on_array(module), module, [(n, 20, WIDTH) for n in (2, 3, 4, 5)])
    assert counts == [2, 3, 4, 1]


@torch.no_grad()
def test_a_batch_of_vectors_and_a_weight_that_each_takes() -> None:
    added = nn.Parameter(torch.randn(WIDTH))

    def fn(x: Tensor) -> Tensor:
        return F.gelu(F.softmax(x, -1) + added)

    counts = _calls(_on_array(fn), fn, [(n, WIDTH) for n in (3, 6, 65)])
    assert counts == [1, 1, 1]


@torch.no_grad()
def test_many_rows_are_few_dispatches() -> None:
    module = nn.Linear(WIDTH, 64).eval()
    run = torch.compile(module, backend="xdna", dynamic=True, options={"device": "array"})
    assert _calls(run, module, [(n, WIDTH) for n in (64, 65, 1500)]) == [1, 1, 2]


@torch.no_grad()
def test_clips_stay_clips() -> None:
    """Attention and convolutions mix a clip's rows: a batch of clips is a dispatch for each."""

    def fn(x: Tensor) -> Tensor:
        q = x.unflatten(-1, (2, 64)).transpose(1, 2)
        return F.gelu(F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2))

    assert _calls(_on_array(fn), fn, [(n, 20, WIDTH) for n in (2, 3, 5)]) == [2, 3, 5]


@torch.no_grad()
@pytest.mark.parametrize("limit", [0, 128])
def test_a_device_that_takes_fewer_rows(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    prepare = EmulatorDevice.prepare

    def up_to(self: EmulatorDevice, region):
        if region.values[0].rows > limit:
            raise LoweringError("linear x: too many rows for this device")
        return prepare(self, region)

    monkeypatch.setattr(EmulatorDevice, "prepare", up_to)
    module = nn.Linear(WIDTH, 64).eval()
    run = torch.compile(module, backend="xdna", dynamic=True, options={"device": "emulator"})
    _calls(run, module, [(n, WIDTH) for n in (3, 70, 300)])
    (report,) = torch_xdna.reports()
    assert report.regions == (limit > 0)
    if not limit:
        assert "too many rows" in report.rows[0].reason
