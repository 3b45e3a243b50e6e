"""What kernels, overlay and lowering agree on: sizes, the layouts of operands, the words of a header.

Sizes are bytes. kernels/common.hpp holds the same facts for C++.
"""

from __future__ import annotations

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
    "scratch": "fp32 scores [4][16][4][4] of 16 rows, lane sums [16][4][4], maxima [16][4][4]",
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
    14: "layer_norm: fp32 bits of the number of zero columns that fill the last block",
    32: "state: output order of the panel",
    33: "state: GELU of the panel",
}
