"""The one configuration of the array: described once, printed as MLIR, drawn, and simulated.

python -m lowering.overlay --mlir [--columns N]     # input for mlir-aie's aiecc
python -m lowering.overlay --svg [--columns N]      # the picture
python -m lowering.overlay --program                # the core program
python -m lowering.overlay --memory [--columns N]   # what fills the tiles' memories
"""

from lowering.overlay.core_program import CORE_PROGRAM, listing
from lowering.overlay.description import Overlay, memory_use, overlay

__all__ = ["CORE_PROGRAM", "Overlay", "listing", "memory_use", "overlay"]
