"""The kernels from the command line.

python -m kernels_xdna1                        list them: operands, memory, modelled cycles
python -m kernels_xdna1 build [FOLDER]         compile them for the core with Peano
python -m kernels_xdna1 count                  count their operations again (cycles.json)
python -m kernels_xdna1 check-silicon FOLDER   compare the host's arithmetic with captures from hardware
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from kernels_xdna1 import contract, counting, cycles, description, peano_build, published, silicon, sizes
from kernels_xdna1.host_compiler import CompilerError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kernels_xdna1", description="The kernels of the overlay for XDNA1."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", help="operands, memory and modelled cycles of every kernel (the default)")
    built = commands.add_parser("build", help="compile for the AIE2 core with Peano (PEANO_INSTALL_DIR)")
    built.add_argument("folder", nargs="?", type=Path, default=Path("build"), help="where the object goes")
    commands.add_parser("count", help="count operations per issue slot again and write cycles.json")
    checked = commands.add_parser("check-silicon", help="compare the host's arithmetic with captured values")
    checked.add_argument("folder", type=Path, help="holds the captures, *.json")
    chosen = parser.parse_args(arguments)
    try:
        return run(chosen)
    except (CompilerError, peano_build.MissingTools, peano_build.TooLarge, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"Error: {Path(error.cmd[0]).name} failed with exit status {error.returncode}", file=sys.stderr)
        return 2


def run(chosen: argparse.Namespace) -> int:
    if chosen.command == "build":
        print(peano_build.build(chosen.folder))
    elif chosen.command == "count":
        counting.write()
        print(f"{len(cycles.variants())} entries in {cycles.COUNTS_FILE.name}")
    elif chosen.command == "check-silicon":
        results = silicon.check(chosen.folder)
        for result in results:
            print(result)
        total, matching = sum(r.values for r in results), sum(r.matching for r in results)
        print(f"{matching} of {total} values match")
        return 0 if matching == total else 1
    else:
        show()
    return 0


def show() -> None:
    """The table of kernels; all cycles are modelled."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 100))
    table = Table(title="Kernels of the overlay")
    for heading in ("kernel", "op", "does", "operands (bytes)"):
        table.add_column(heading, no_wrap=heading == "kernel")
    for kernel in description.KERNELS:
        operands = [
            f"{o.name}: {o.order}{' ' + str(o.bytes) if o.is_buffer else ''}{', written' if o.written else ''}"
            for o in kernel.operands
        ]
        table.add_row(kernel.name, kernel.op, kernel.does, "\n".join(operands))
    console.print(table)
    for name, layout in contract.ORDERS.items():
        console.print(f"{name}: {layout}", highlight=False, markup=False)

    costs = Table(title="Modelled cycles per call, estimated bytes of program")
    for heading in ("kernel", "busiest slot", "bound", "modelled", "bytes"):
        costs.add_column(heading, justify="left" if heading in ("kernel", "busiest slot") else "right")
    described: dict[str, list[str]] = {}
    for name, variant in cycles.variants():
        described.setdefault(name, []).append(variant)
    for name, variant in cycles.variants():
        costs.add_row(
            f"{name} ({variant})" if variant else name,
            cycles.busiest(name, variant),
            f"{cycles.bound(name, variant):.0f}",
            f"{cycles.cycles(name, variant):.0f}",
            "" if variant in described[name][1:] else f"{sizes.ESTIMATES[name].bytes}",
        )
    console.print(costs)
    console.print(
        f"bytes, estimated: of the traced npu1 kernels that each resembles, off by up to {sizes.FACTOR} x either way; "
        "`python -m lowering.overlay --memory` adds them up for the cores of each overlay.",
        highlight=False,
    )
    compared = Table(title="Products: bound and measured (by others, on hardware)")
    for heading in ("row", "kernel", "m x k x n", "bound", "measured", "factor"):
        compared.add_column(heading, justify="left" if heading in ("row", "kernel", "m x k x n") else "right")
    for product in published.PRODUCTS:
        compared.add_row(
            product.row,
            product.kernel,
            f"{product.m} x {product.k} x {product.n}",
            f"{product.bound:.0f}",
            f"{product.cycles:.1f}",
            f"{product.factor:.2f}",
        )
    console.print(compared)
    console.print(
        f"bound: operations in the busiest issue slot, counted by the host build. modelled: bound x "
        f"{cycles.compiler_factor():.2f} + {cycles.EMPTY_CALL:.0f}; the factor is what the stock 64x64x64 "
        f"product was measured to take ({cycles.STOCK_GEMM_CYCLES:.0f} cycles) over its bound. The product itself "
        "has the published fit of the stock kernel.",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
