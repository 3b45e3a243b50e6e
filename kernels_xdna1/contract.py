"""What kernels, overlay and lowering agree on: sizes, the layouts of operands, the words of a header.

Sizes are bytes. kernels/common.hpp holds the same facts for C++.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

BLOCK_BYTES = 64 * 64 * 2
SUMS_BYTES = 64 * 64 * 4
HEADER_BYTES = 64 * 4
STACK_BYTES = 3328
CONSTANT_BYTES = 2048
"""Data memory kept for the kernels' constants (GELU's table, lane numbers): the linker puts them behind the buffers."""

ORDERS = {
    "A": "bf16 [16][8][4][8]: tiles of 4 rows x 8 columns (row tile, column tile, row, column)",
    "B": "bf16 [8][16][8][4]: tiles of 8 k x 4 n (k tile, n tile, k, n); keys: k = head dimension; values: k = key",
    "sums": "fp32 [16][16][4][4]: tiles of 4 x 4",
    "header": "int32 [64]: words of `HEADER`, then state of the core",
    "panel": "fp32 bias[64], int32 output order (0 A, 1 keys, 2 values), int32 GELU (0 or 1)",
    "scratch": "fp32 scores [4][16][4][4] of 16 rows, lane sums [16][4][4], maxima: see kernels/attention.hpp",
    "share": "an A-order block of which the core owns 16 rows (layer_norm, softmax, gelu, add)",
    "pieces": "four times 16 rows of a block in A order",
    "vector": "fp32 [2048]: gamma or beta of a layer_norm",
}

HEADER = {
    0: "op: 1 gemm, 2 attention, 3 row operation",
    1: "trips of the outer loop",
    2: "trips of the inner loop: blocks of k, key blocks, blocks of the statistics pass",
    3: "gemm: residual objects per output; attention: query objects before the two held; row: outputs per outer trip",
    4: "row: input objects per output object",
    5: "row: kind: 0 layer_norm, 1 softmax, 2 gelu, 3 add",
    6: "gemm: first valid row of the output",
    7: "gemm: end of the valid rows; rows outside are zeroed",
    8: "gemm: row groups",
    9: "attention: valid keys; softmax: valid columns",
    10: "attention: fp32 bits of the bf16 upper part of scale * log2(e); layer_norm: fp32 bits of eps",
    11: "attention: fp32 bits of the bf16 lower part of scale * log2(e)",
    12: "layer_norm: columns; those that fill the last block do not count",
    13: "layer_norm: fp32 bits of 1 / columns",
    32: "state: output order of the panel",
    33: "state: GELU of the panel",
}


class Op(IntEnum):
    """Header word `op`: which of the core program's loops runs."""

    GEMM = 1
    ATTENTION = 2
    ROWS = 3


class BlockOrder(IntEnum):
    """How a block that a product writes lies in memory: see `ORDERS`."""

    A = 0
    KEYS = 1
    VALUES = 2


@dataclass(frozen=True)
class RowKind:
    """A row operation. `code`: header word `kind`; `statistics`: whether each row block passes `row_stats` first;
    `operands`: blocks that come for one result."""

    name: str
    code: int
    statistics: bool
    operands: int


ROW_KINDS = (
    RowKind("layer_norm", 0, True, 1),
    RowKind("softmax", 1, True, 1),
    RowKind("gelu", 2, False, 1),
    RowKind("add", 3, False, 2),
)
PIECES = 4
"""Blocks that share a C object of a row operation: each core gives 16 rows of each."""

HEADER_WORD = {
    "op": 0,
    "outer": 1,
    "inner": 2,
    "extra": 3,
    "per_output": 4,
    "kind": 5,
    "first_row": 6,
    "end_row": 7,
    "groups": 8,
    "valid": 9,
    "scale_hi": 10,
    "eps": 10,
    "scale_lo": 11,
    "width": 12,
    "inverse_width": 13,
}
"""Names of the words of `HEADER` that come with a header object, as kernels/common.hpp has them."""
HEADER_FLOATS = ("scale_hi", "scale_lo", "eps", "inverse_width")
PANEL_GELU = 65
"""Word of a panel's parameters that says whether it ends in GELU."""
