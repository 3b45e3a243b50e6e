"""What the model says of measurements that its constants were not fitted on: rows, and groups up to a whole source."""

from __future__ import annotations

import pytest

from torch_xdna.lowering.time import calibrate, held_out
from torch_xdna.lowering.time.gemm import KERNEL, gemm_kernel_cycles, scheduled_kernel


@pytest.mark.parametrize("key", held_out.GROUPS)
def test_groups_are_met_by_constants_fitted_without_them(key):
    found = held_out.leave_out(key)
    everything = [row for held in found for row in held.errors]
    assert sorted(everything) == sorted(point["id"] for point in calibrate.array_points())
    assert max(held.worst for held in found) <= 0.10


def test_a_left_out_group_does_not_take_part():
    for held in held_out.leave_out("input type"):
        assert (held.run_ns, held.page_ns) != pytest.approx(calibrate.fit_memory(), rel=0.005)


@pytest.mark.parametrize("dtype", KERNEL)
def test_kernels_are_met_from_the_other_type(dtype):
    """The single-core rows of a type by its own inner loop and the other type's overheads."""
    kernel = held_out.kernel_without(dtype)
    for m, k, n in ((32, 32, 32), (32, 64, 32), (32, 128, 32), (64, 64, 64)):
        cycles = m / 16 * (n / 16 * (kernel[0] * k / 8 + kernel[1]) + kernel[2])
        assert cycles == pytest.approx(gemm_kernel_cycles(m, k, n, dtype), rel=0.10)


def test_the_unmeasured_type_lies_between_its_bounds():
    cycles = gemm_kernel_cycles(64, 64, 64, "int16")
    assert 64**3 / 64 < cycles < 2 * 64**3 / 64
    assert scheduled_kernel("int16")[0] == pytest.approx(32 / 0.889)
