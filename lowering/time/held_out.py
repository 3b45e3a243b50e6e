"""What the model says of measurements that its constants were not fitted on: rows and whole groups left out.

    python -m torch_xdna.lowering.time fit

A group's rows are predicted by the memory's two constants fitted on all other array rows. If the group is an input
type, its single-core rows are left out as well: its kernel is then `scheduled_kernel`, the type's own inner loop with
the overheads of the other type. All array rows are one author's, on one machine at one clock; leaving out that
source leaves none, so the memory's constants are then read off the bandwidths of short runs that others measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch_xdna.lowering.time import calibrate
from torch_xdna.lowering.time.costs import Costs
from torch_xdna.lowering.time.gemm import KERNEL, Kernel, scheduled_kernel

Point = dict[str, str]

# Reads in runs of 16 B reached 10 GB/s and of 32 B 14 GB/s, so many to a page; of 128 B, each in its own, 21 GB/s.
SHORT_RUN_NS = (16 / 10 + 32 / 14) / 2
SHORT_PAGE_NS = 128 / 21 - SHORT_RUN_NS

GROUPS: dict[str, Callable[[Point], str]] = {
    "row": lambda point: point["id"].removesuffix("n"),
    "shape": lambda point: " x ".join(point[axis] for axis in "mkn"),
    "tile": lambda point: ",".join(point[f"tile_{axis}"] for axis in "mkn"),
    "tile n": lambda point: point["tile_n"],
    "output type": lambda point: point["dtype_out"],
    "input type": lambda point: point["dtype_in"],
    "source": lambda point: point["source"],
}


@dataclass(frozen=True)
class HeldOut:
    """Rows with the same value of `key`, predicted without them; errors by row, relative."""

    key: str
    group: str
    run_ns: float
    page_ns: float
    errors: dict[str, float]

    @property
    def worst(self) -> float:
        return max(map(abs, self.errors.values()))


def leave_out(key: str) -> list[HeldOut]:
    """Every group of `GROUPS[key]`, left out one after another."""
    points, found = calibrate.array_points(), []
    for group in dict.fromkeys(map(GROUPS[key], points)):
        inside = [point for point in points if GROUPS[key](point) == group]
        ids = [point["id"] for point in inside]
        fitted = len(inside) < len(points)
        run, page = calibrate.fit_memory(ids) if fitted else (SHORT_RUN_NS, SHORT_PAGE_NS)

        def costs(clock: float, run: float = run, page: float = page) -> Costs:
            return replace(Costs(clock), run_ns=run, page_ns=page)

        kernel = kernel_without(group) if key == "input type" else None
        errors = {
            point["id"]: calibrate.predict_gemm(point, costs, kernel) / float(point["value"]) - 1
            for point in inside
        }
        found.append(HeldOut(key, group, run, page, errors))
    return found


def kernel_without(dtype: str) -> Kernel:
    """The stock kernel's constants for `dtype` from the measurements of the other type alone."""
    return scheduled_kernel(dtype, {name: triple for name, triple in KERNEL.items() if name != dtype})


def render() -> str:
    """One line per group."""
    lines = ["rows predicted by constants fitted without their group (run and page in ns, errors):"]
    for key in GROUPS:
        for held in leave_out(key):
            errors = ", ".join(f"{row} {error:+.1%}" for row, error in held.errors.items())
            lines.append(f"  {key} {held.group}: {held.run_ns:.2f}, {held.page_ns:.2f}: {errors}")
    return "\n".join(lines)
