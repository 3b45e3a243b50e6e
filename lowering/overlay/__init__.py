"""The one configuration of the array: described once, printed as MLIR, drawn, and simulated.

python -m torch_xdna.lowering.overlay --mlir [--columns N]     # input for mlir-aie's aiecc
python -m torch_xdna.lowering.overlay --svg [--columns N]      # the picture
python -m torch_xdna.lowering.overlay --program                # the core program
python -m torch_xdna.lowering.overlay --memory [--columns N]   # what fills the tiles' memories
"""

from torch_xdna.lowering.overlay.core_program import CORE_PROGRAM, listing
from torch_xdna.lowering.overlay.description import Overlay, memory_use, overlay

__all__ = ["CORE_PROGRAM", "Overlay", "listing", "memory_use", "overlay"]
