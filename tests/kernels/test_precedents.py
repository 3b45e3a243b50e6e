"""The time model on loops that others traced: what it says of kernels that its two constants were not fitted on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from torch_xdna.kernels_xdna1 import loops, precedents, sizes

CALIBRATION = Path(__file__).parent.parent.parent / "lowering" / "time" / "calibration.csv"


def test_the_losses_in_use_are_the_fitted_ones() -> None:
    assert precedents.fit() == pytest.approx((loops.PIPELINED_LOSS, loops.STRAIGHT_LOSS))


def test_rows_left_out_are_predicted() -> None:
    middle, worst = precedents.summary(precedents.left_out())
    assert middle <= 0.10 and worst <= 0.25, (middle, worst)


def test_the_flat_factor_would_be_far_off() -> None:
    """What stood here before: the busiest slot times 2.65. The bound is not loose."""
    factor = 2.65
    bounds = []
    for precedent, trace in zip(precedents.PRECEDENTS, precedents._traces()):
        found = loops.Timing(trace).loops
        slots = sum(max(loop.slots.values()) * loop.trips * loop.times for loop in found)
        bounds.append(abs(factor * slots / precedent.cycles - 1))
    assert sorted(bounds)[len(bounds) // 2] > 0.5


def test_precedents_are_rows_of_the_calibration() -> None:
    rows = {row["id"]: row for row in csv.DictReader(CALIBRATION.open())}
    for precedent in precedents.PRECEDENTS:
        row = rows[precedent.id]
        assert float(row["value"]) == precedent.cycles and precedent.row in row["source"], precedent


def test_known_sizes_of_program_are_within_the_factor() -> None:
    for kernel, (traced, estimated) in precedents.sizes().items():
        assert traced / sizes.FACTOR <= estimated <= traced * sizes.FACTOR, kernel
