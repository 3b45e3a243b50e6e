"""The kernels from the command line.

python -m torch_xdna.kernels_xdna1                        list them: operands, memory, modelled cycles
python -m torch_xdna.kernels_xdna1 build [FOLDER]         compile them for the core with Peano
python -m torch_xdna.kernels_xdna1 count                  count and schedule their operations again (cycles.json)
python -m torch_xdna.kernels_xdna1 precedents             traced loops of others, modelled in the same way
python -m torch_xdna.kernels_xdna1 check-silicon FOLDER   compare the host's arithmetic with captures from hardware
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from torch_xdna.kernels_xdna1 import counting, cycles, peano_build, silicon
from torch_xdna.kernels_xdna1.host_compiler import CompilerError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m torch_xdna.kernels_xdna1", description="The kernels of the overlay for XDNA1."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser(
        "list", help="operands, memory, loops and modelled cycles of every kernel (the default)"
    )
    built = commands.add_parser("build", help="compile for the AIE2 core with Peano (PEANO_INSTALL_DIR)")
    built.add_argument("folder", nargs="?", type=Path, default=Path("build"), help="where the object goes")
    commands.add_parser("count", help="count and schedule operations again and write cycles.json")
    commands.add_parser("precedents", help="traced loops of others beside the model's prediction")
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
    elif chosen.command == "precedents":
        from torch_xdna.kernels_xdna1 import tables

        tables.show_precedents()
    elif chosen.command == "check-silicon":
        results = silicon.check(chosen.folder)
        for result in results:
            print(result)
        total, matching = sum(r.values for r in results), sum(r.matching for r in results)
        print(f"{matching} of {total} values match")
        return 0 if matching == total else 1
    else:
        from torch_xdna.kernels_xdna1 import tables

        tables.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
