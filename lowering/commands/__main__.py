"""`python -m torch_xdna.lowering.commands check FILE.json`: our words beside mlir-aie's for the same commands."""

import sys

from torch_xdna.lowering.commands.check import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
