"""Placement of a core's buffers in the banks of its data memory."""

from __future__ import annotations

from itertools import pairwise

import pytest

from torch_xdna.kernels_xdna1 import cycles
from torch_xdna.lowering.overlay import banks
from torch_xdna.lowering.overlay.description import Tile, memory_use, overlay


@pytest.mark.parametrize("placement", [banks.sequential(), banks.apart()], ids=["sequential", "apart"])
def test_placements_fit_and_do_not_overlap(placement: dict[str, banks.Place]) -> None:
    places = sorted(placement.values())
    assert all(a + size <= b for (a, size), (b, _) in pairwise(places))
    assert places[0][0] == 0 and sum(places[-1]) <= banks.BANK * banks.BANKS
    used = memory_use(overlay(4), Tile(0, 2))
    assert sum(size for _, size in places) == sum(used.values()) - used["cursors"]


def test_every_operand_of_a_kernel_has_a_buffer() -> None:
    named = {name for v in cycles.variants() for pair in cycles.meets(*v) for name in pair}
    assert named <= set(banks.BUFFERS)


def test_a_bank_per_stream_costs_the_product_nothing() -> None:
    assert banks.lost_cycles("gemm_step", "", banks.apart()) == 0
    assert banks.lost_cycles("gemm_step", "", banks.sequential()) > 0


def test_likelihoods() -> None:
    whole, half = (0, banks.BANK), (banks.BANK // 2, banks.BANK)
    assert banks.together([whole], [whole]) == 1
    assert banks.together([whole], [half]) == 0.5
    assert banks.together([whole], [(2 * banks.BANK, 64)]) == 0


def test_the_listing_names_buffers_and_kernels() -> None:
    text = "\n".join(banks.listing())
    assert "sequential:" in text and "apart:" in text and "gemm_step" in text
