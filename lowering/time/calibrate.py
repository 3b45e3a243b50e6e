"""The model against published measurements, row by row, and the fits of its constants.

    python -m torch_xdna.lowering.time calibrate            # the table; --markdown for the README's form
    python -m torch_xdna.lowering.time fit                  # the constants, and each array row predicted without itself

`calibration.csv` holds measurements that the authors named in its `source` column published for their own
designs on their own machines; the figures are theirs. Two constants are fitted to the array rows (a run's
and a page's time in DDR), three per dtype to the single-core rows. Everything else is read off a single row
or follows from the design. What the model says of rows that its constants were not fitted on: `held_out.py`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from statistics import median

import numpy as np

from torch_xdna.lowering.time import transfers
from torch_xdna.lowering.time.costs import Costs
from torch_xdna.lowering.time.estimate import dispatch_seconds
from torch_xdna.lowering.time.gemm import estimate_gemm, gemm_kernel_cycles

CSV = Path(__file__).with_name("calibration.csv")


@dataclass(frozen=True)
class Row:
    """One published value beside the model's; `error` is relative, in the unit as published."""

    id: str
    layer: str
    what: str
    measured: float
    modelled: float
    unit: str
    clock_ghz: float

    @property
    def error(self) -> float:
        return self.modelled / self.measured - 1


def table(costs: Callable[[float], Costs] = Costs) -> list[Row]:
    """Every row that the model can predict (all but L10, a rate that serves as the what-if, and traced loops, K..)."""
    rows = []
    for row in _read():
        value = _predict(row, costs)
        if value is not None:
            clock = float(row["clock_ghz"] or 0)
            rows.append(
                Row(row["id"], row["layer"], _describe(row), float(row["value"]), value, row["unit"], clock)
            )
    return rows


def summary(rows: list[Row], layer: str = "array") -> tuple[float, float]:
    """(median, worst) absolute relative error over one layer."""
    errors = [abs(row.error) for row in rows if row.layer == layer]
    return median(errors), max(errors)


def fit_kernel(dtype: str) -> tuple[float, float, float]:
    """Least squares of relative errors over the single-core rows: the triple in `gemm.KERNEL`."""
    rows = [row for row in _read() if row["layer"] == "core" and row["what"].startswith("mlir-aie")]
    rows = [row for row in rows if row["dtype_in"] == dtype]
    terms, cycles = [], []
    for row in rows:
        m, k, n = (int(row[f"tile_{axis}"]) for axis in "mkn")
        terms.append([m / 16 * n / 16 * k / 8, m / 16 * n / 16, m / 16])
        cycles.append(float(row["value"]))
    scaled = np.array(terms) / np.array(cycles)[:, None]
    a, b, c = np.linalg.lstsq(scaled, np.ones(len(cycles)), rcond=None)[0]
    return float(a), float(b), float(c)


def array_points() -> list[dict[str, str]]:
    """The array rows, and the note of G11 (the same product with tile_n 32) as one more measured point, G11n."""
    rows = [row for row in _read() if row["layer"] == "array"]
    noted = [{**row, "id": "G11n", "tile_n": "32", "value": "2387"} for row in rows if row["id"] == "G11"]
    return rows + noted


def fit_memory(without: Collection[str] = ()) -> tuple[float, float]:
    """(run_ns, page_ns) with the least squared log error over `array_points`, except `without`; a plain grid."""
    points = [row for row in array_points() if row["id"] not in without]

    def loss(run_ns: float, page_ns: float) -> float:
        def costs(clock: float) -> Costs:
            return replace(Costs(clock), run_ns=run_ns, page_ns=page_ns)

        return sum(log(predict_gemm(row, costs) / float(row["value"])) ** 2 for row in points)

    run, page, width = 2.0, 3.5, 1.5
    for _ in range(5):
        grid = [(run + i * width / 4, page + j * width / 4) for i in range(-4, 5) for j in range(-4, 5)]
        run, page = min((point for point in grid if min(point) >= 0), key=lambda point: loss(*point))
        width /= 2
    return run, page


def _read() -> list[dict[str, str]]:
    with CSV.open(newline="") as file:
        return list(csv.DictReader(file))


def _describe(row: dict[str, str]) -> str:
    shape = " x ".join(row[axis] for axis in "mkn" if row[axis])
    dtype = "->".join(row[key] for key in ("dtype_in", "dtype_out") if row[key])
    tile = ",".join(row[f"tile_{axis}"] for axis in "mkn" if row[f"tile_{axis}"])
    words = [row["what"]]
    if row["layer"] == "array":
        words += [shape, dtype, f"tile {tile}"]
    elif row["layer"] == "core":
        words += [shape, dtype]
    return " ".join(word for word in words if word)


def predict_gemm(
    row: dict[str, str], costs: Callable[[float], Costs], kernel: tuple[float, float, float] | None = None
) -> float:
    """The model's GFLOPS for an array row; `kernel` in place of the fitted constants of its dtype."""
    m, k, n, tile_m, tile_k, tile_n = (int(row[key]) for key in ("m", "k", "n", "tile_m", "tile_k", "tile_n"))
    clock = float(row["clock_ghz"])
    return estimate_gemm(
        m, k, n, tile=(tile_m, tile_k, tile_n), dtype=f"{row['dtype_in']}->{row['dtype_out']}",
        cores=int(row["cores"]), clock_ghz=clock, costs=costs(clock), kernel=kernel,
    ).gops  # fmt: skip


def _predict(row: dict[str, str], costs: Callable[[float], Costs]) -> float | None:
    """The model's value in the row's own unit."""
    name, clock = row["id"], float(row["clock_ghz"] or 0)
    if row["layer"] == "array":
        return predict_gemm(row, costs)
    if name.startswith("K"):  # traced loops: `python -m torch_xdna.kernels_xdna1 precedents`
        return None
    if row["layer"] == "core" and row["tile_m"]:
        tile = [int(row[f"tile_{axis}"]) for axis in "mkn"]
        if name == "L1":  # another kernel: the best rate, the what-if switch
            return None
        return gemm_kernel_cycles(tile[0], tile[1], tile[2], row["dtype_in"])
    one_run, mib = dispatch_seconds, 2**20
    special: dict[str, Callable[[], float]] = {
        "M1": lambda: 64 * mib / transfers.estimate_memcpy(64 * mib, clock_ghz=clock).seconds / 1e9,
        "M2": lambda: (
            64 * mib / transfers.estimate_memcpy(64 * mib, clock_ghz=clock, columns=1).seconds / 1e9
        ),
        "M3": lambda: 1024 * mib / transfers.estimate_read(1024 * mib, clock_ghz=clock).seconds / 1e9,
        "M4": lambda: 78.7e6 / transfers.estimate_read(78.7e6, clock_ghz=clock, channels=1).seconds / 1e9,
        "M5a": lambda: _cycles(transfers.estimate_shim_task(4096, direction="mm2s", clock_ghz=clock), clock),
        "M5b": lambda: _cycles(transfers.estimate_shim_task(4096, direction="s2mm", clock_ghz=clock), clock),
        "D1": lambda: one_run("jit") * 1e6,
        "D2": lambda: one_run("single") * 1e6,
        "D3": lambda: one_run("runlist:64") * 1e6,
        "D5": lambda: one_run("stream") * 1e6,
        "D7": lambda: Costs(1.0).overlay_change_s * 1e6,
        "D11": lambda: (
            transfers.estimate_memcpy(4096, clock_ghz=1.03, columns=1, dispatch="single").seconds * 1e6
        ),
        "D14": lambda: Costs(clock).task_cycles,
        "R1": lambda: transfers.estimate_softmax(1536, 1504, clock_ghz=1.6).seconds * 1e3,
        "R3": lambda: transfers.estimate_attention_chain(1536, 1536, clock_ghz=1.6).seconds * 1e3,
        "R4": lambda: transfers.estimate_flash_attention(1536, 1536, clock_ghz=1.6).seconds * 1e3,
    }
    return special[name]() if name in special else None


def _cycles(estimate: transfers.Estimate, clock: float) -> float:
    return Costs(clock).cycles(estimate.seconds)
