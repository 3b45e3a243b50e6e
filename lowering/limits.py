"""Every hardware limit that lowering respects, named once, with its unit and where the number comes from.

Sources, in short: REG = the AIE2 register map (field widths, as mlir-aie's target model and its
`npu.dma_memcpy_nd` verifier state them); DRV = the amdxdna driver; MEAS = measured on Phoenix hardware and
published (whisper-xdna, ignite-xdna, xdna-emu); CONTRACT = a choice of this project's overlay.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_xdna.kernels_xdna1 import contract
from torch_xdna.lowering.errors import LimitError


@dataclass(frozen=True)
class Limit:
    """An inclusive maximum. `name` starts every `LimitError` message."""

    name: str
    maximum: int
    unit: str
    source: str

    def check(self, value: int, what: str) -> None:
        """Raise `LimitError` if `value` is above the limit; `what` says whose value it is."""
        if value > self.maximum:
            raise LimitError(f"{self.name}: {what} is {value}, the limit is {self.maximum} {self.unit}")


# The array
COLUMNS = Limit("columns", 4, "columns", "DRV: npu1 exposes physical columns 1-4")
CORE_ROWS = 4  # rows of cores per column; row 0 of the array is the shim, row 1 the memtile (REG)
CORE_MEMORY = Limit("core memory", 64 * 1024, "bytes", "REG: 4 banks of 16 KB")
CORE_PROGRAM = Limit("core program memory", 16 * 1024, "bytes", "REG")
CORE_STACK = contract.STACK_BYTES  # Peano's default of 1024 silently corrupts buffers (MEAS)
MEMTILE_MEMORY = Limit("memtile memory", 512 * 1024, "bytes", "REG")
MEMTILE_DESCRIPTORS = Limit("memtile descriptors", 24, "descriptors", "REG: of 48, even channels reach 0-23")
CORE_CHANNELS = Limit("core DMA channels", 2, "channels per direction", "REG")
MEMTILE_CHANNELS = Limit("memtile DMA channels", 6, "channels per direction", "REG")

# The shim's DMA
SHIM_CHANNELS = Limit("shim DMA channels", 2, "channels per direction", "REG")
SHIM_DESCRIPTOR = Limit("shim descriptor number", 15, "(16 descriptors, counted from 0)", "REG")
SHIM_LIVE = Limit("live shim descriptors", 14, "descriptors per shim", "MEAS: 16 in flight wedge the array")
SHIM_QUEUE = Limit("shim task queue", 4, "tasks per channel", "REG: a fifth push stalls or is lost")
SHIM_WRAP = Limit("shim wrap", 1023, "words (innermost size) or rows", "REG: 10-bit D0 and D1 wraps")
SHIM_STEP = Limit("shim step", 1 << 20, "words", "REG: 20-bit field that holds step - 1")
SHIM_ITERATION = Limit("shim iteration", 64, "repeats of a task", "REG: 6-bit field that holds count - 1")
SHIM_LENGTH = Limit("shim transfer length", (1 << 32) - 1, "words", "REG: 32-bit buffer length")
GRANULE = 4  # bytes: addresses, lengths and steps of every DMA are multiples of it (REG)

TOKEN_ID = 15  # the controller id that a shim's tokens must carry: routes let only it pass (mlir-aie: AIETargetModel,
# aie-assign-tile-controller-ids; the signed Phoenix firmware completed only for tokens of it: xdna-emu)

# The instruction stream
KERNEL_ARGUMENT = Limit("kernel argument", (1 << 31) - 1, "(argument number)", "transaction format: int32")
ARGUMENT_OFFSET = Limit("argument offset", (1 << 32) - 1, "bytes", "address patch: 32-bit offset")
INSTRUCTION_HEAP = Limit("instruction buffer", 64 << 20, "bytes", "DRV: 64 MB device heap")
TILE_ADDRESS = Limit("tile address", (1 << 20) - 1, "(byte address in a tile)", "REG: 1 MB per tile")
RUN_SECONDS = Limit("run time", 4, "seconds", "DRV: a run is killed 4 to 6 s after its start (xdna-emu)")
WORD = Limit("word", (1 << 32) - 1, "(unsigned 32-bit value)", "REG")

# The overlay's own choices
BLOCK = 64  # rows and columns of a block (CONTRACT)
BLOCK_BYTES = contract.BLOCK_BYTES  # bf16 (CONTRACT)
NORM_WIDTH = Limit("layer_norm width", 2048, "columns", "CONTRACT: gamma and beta fill one FIFO object each")
SOFTMAX_WIDTH = Limit("softmax width", 4096, "columns", "CONTRACT: one statistics pass over 64 block columns")
