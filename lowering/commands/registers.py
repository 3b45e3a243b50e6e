"""The register map of a shim and the records of a transaction stream.

Sources: AMD's AM025 (register reference of AIE-ML) and mlir-aie's output.
"""

from __future__ import annotations

MM2S, S2MM = "MM2S", "S2MM"  # memory to stream (into the array), stream to memory


# Transaction header: version 0.1, device generation 3 (AIE2), 6 tile rows; then columns, 1 memtile row.
VERSION_WORD = 0x06030100


MEMTILE_ROWS = 1


STREAM_HEADER_WORDS = 4


OPCODE_WRITE32, OPCODE_BLOCKWRITE, OPCODE_MASKWRITE, OPCODE_WAIT, OPCODE_PATCH = 0x00, 0x01, 0x03, 0x80, 0x81


RECORD_WORDS = {
    OPCODE_WRITE32: 6, OPCODE_BLOCKWRITE: 12, OPCODE_MASKWRITE: 7, OPCODE_WAIT: 4, OPCODE_PATCH: 12,
}  # fmt: skip


# Register map of a shim (byte addresses in the tile)
COLUMN_SHIFT, ROW_SHIFT = 25, 20


DESCRIPTOR_BASE, DESCRIPTOR_STEP, DESCRIPTOR_ADDRESS_FIELD = 0x1D000, 0x20, 0x4


QUEUE = {(S2MM, 0): 0x1D204, (S2MM, 1): 0x1D20C, (MM2S, 0): 0x1D214, (MM2S, 1): 0x1D21C}


CONTROL = {
    channel: queue - 4 for channel, queue in QUEUE.items()
}  # a channel's Ctrl register (AM025, noc_module/dma)


TOKEN_ID_SHIFT, TOKEN_ID_MASK = 8, 0x1F00  # of Ctrl: the field that mlir-aie writes


TOKEN_BIT = 1 << 31


BURST_256 = 2 << 30  # longest bursts, word 4 of a descriptor


CACHE_AXI = 2 << 24  # word 5


VALID = 1 << 25  # word 7
