"""`python -m torch_xdna.lowering.time calibrate [--markdown]` and `python -m torch_xdna.lowering.time fit`."""

from __future__ import annotations

import sys

from torch_xdna.lowering.time import calibrate, held_out
from torch_xdna.lowering.time.costs import Costs
from torch_xdna.lowering.time.gemm import KERNEL


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["calibrate"]:
        print(render("--markdown" in arguments))
    elif arguments == ["fit"]:
        print(fits())
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


def render(markdown: bool = False) -> str:
    """The calibration table with its errors; array rows are summed up below."""
    rows = calibrate.table()
    cells = [("row", "what", "GHz", "measured", "modelled", "unit", "error")]
    for row in rows:
        clock = f"{row.clock_ghz:g}" if row.clock_ghz else ""
        values = f"{row.measured:g}", f"{row.modelled:.4g}", row.unit, f"{row.error:+.1%}"
        cells.append((row.id, row.what, clock, *values))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    if markdown:
        lines = ["| " + " | ".join(line) + " |" for line in cells]
        lines.insert(1, "|---" * len(cells[0]) + "|")
    middle, worst = calibrate.summary(rows)
    lines += [
        "",
        f"array rows: median absolute error {middle:.1%}, worst {worst:.1%} (modelled against published)",
    ]
    return "\n".join(lines)


def fits() -> str:
    """The constants fitted again, beside the ones in use, and what held-out rows say of them."""
    lines = []
    for dtype, used in KERNEL.items():
        fitted = calibrate.fit_kernel(dtype)
        lines.append(f"kernel {dtype}: fitted {', '.join(f'{v:.2f}' for v in fitted)}; in use {used}")
    run, page = calibrate.fit_memory()
    costs = Costs(1.0)
    lines.append(f"DDR: fitted run {run:.2f} ns, page {page:.2f} ns; in use {costs.run_ns}, {costs.page_ns}")
    lines.append(held_out.render())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
