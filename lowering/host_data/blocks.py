"""Matrices <-> blocks of 64 x 64 bf16 in the orders that the matrix unit eats. Vectorised numpy, no torch.

| order | tiles | grid of tiles | used by |
| --- | --- | --- | --- |
| A | 4 rows x 8 cols | [16 rows][8 cols] | every activation |
| B | 8 k x 4 n | [8 k][16 n] | weights: element (k, n) is W[n, k] |
| K | 8 d x 4 keys | [8 d][16 keys] | attention's keys: the B order of K^T |
| V | 8 keys x 4 d | [8 keys][16 d] | attention's values: the B order of V |

Tiles and their insides are row-major. All functions return uint16 (bits of bf16) unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from torch_xdna.lowering.host_data import native
from torch_xdna.lowering.host_data.bf16 import FEW, to_bf16
from torch_xdna.lowering.limits import BLOCK, BLOCK_BYTES, CORE_ROWS
from torch_xdna.lowering.ops import Activation

BLOCK_WORDS = BLOCK_BYTES // 4
_PIECE = np.complex128  # stands for a row of a tile, 8 bf16: 16 bytes that numpy moves as one item

ACTIVATION_CODE = {None: 0, Activation.GELU: 1}  # word of a panel's parameters (`kernels_xdna1.contract`)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def blocks_of(size: int) -> int:
    """Blocks that hold `size` rows or columns."""
    return ceil_div(size, BLOCK)


def padded_blocks(size: int) -> int:
    """The same, padded to a multiple of 4: what a matrix in device memory has in both directions."""
    return CORE_ROWS * ceil_div(blocks_of(size), CORE_ROWS)


def pad(matrix: np.ndarray, row_blocks: int, col_blocks: int) -> np.ndarray:
    """(rows, cols) fp32, or bits of bf16 already -> uint16 bits (64 row_blocks, 64 col_blocks), zeros
    around."""
    rows, cols = matrix.shape
    bits = matrix if matrix.dtype == np.uint16 else to_bf16(matrix)
    if (rows, cols) == (BLOCK * row_blocks, BLOCK * col_blocks):
        return bits
    out = np.zeros((BLOCK * row_blocks, BLOCK * col_blocks), np.uint16)
    out[:rows, :cols] = bits
    return out


def pack_a(matrix: np.ndarray, row_blocks: int, col_blocks: int) -> np.ndarray:
    """(rows, cols) fp32 or bits of bf16 -> (row_blocks, col_blocks, 4096) in A order."""
    pieces = pad(matrix, row_blocks, col_blocks).view(_PIECE).reshape(row_blocks, 16, 4, col_blocks, 8)
    tiles = np.ascontiguousarray(pieces.transpose(0, 3, 1, 4, 2))
    return tiles.view(np.uint16).reshape(row_blocks, col_blocks, -1)


def unpack_a(blocks: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """(row_blocks, col_blocks, 4096) in A order -> (rows, cols) fp32."""
    if rows * cols > FEW and blocks.flags.c_contiguous and (compiled := native.functions()):
        return compiled.unpack_a(blocks, rows, cols)
    col_blocks = blocks.shape[1]
    out = np.empty((rows, cols), np.float32)
    for first in range(0, rows, BLOCK):  # one row block at a time stays in the cache between the two passes
        tiles = blocks[first // BLOCK].view(_PIECE).reshape(col_blocks, 16, 8, 4).transpose(1, 3, 0, 2)
        bits = np.ascontiguousarray(tiles).view(np.uint16).reshape(BLOCK, -1)
        found = out[first : first + BLOCK].view(np.uint32)
        found[...] = bits[: len(found), :cols]
        found <<= 16
    return out


def pack_keys(matrix: np.ndarray, key_blocks: int, heads: int) -> np.ndarray:
    """(keys, 64 heads) fp32 -> (heads, key_blocks, 4096) in K order."""
    tiles = pad(matrix, key_blocks, heads).reshape(key_blocks, 16, 4, heads, 8, 8)
    return np.ascontiguousarray(tiles.transpose(3, 0, 4, 1, 5, 2)).reshape(heads, key_blocks, -1)


def pack_values(matrix: np.ndarray, key_blocks: int, heads: int) -> np.ndarray:
    """(keys, 64 heads) fp32 -> (heads, key_blocks, 4096) in V order."""
    tiles = pad(matrix, key_blocks, heads).reshape(key_blocks, 8, 8, heads, 16, 4)
    return np.ascontiguousarray(tiles.transpose(3, 0, 1, 4, 2, 5)).reshape(heads, key_blocks, -1)


def pack_panels(
    out: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, order: int, activation: Activation | None
) -> None:
    """Fill `out`, uint16 (n_blocks, k_blocks + 1, 4096): per panel its k blocks in B order, then its
    parameters.

    `weight` (n, k) and `bias` (n,) are fp32 and may be smaller than the panels: the rest is zero.
    """
    n_blocks, k_blocks = out.shape[0], out.shape[1] - 1
    tiles = pad(weight, n_blocks, k_blocks).reshape(n_blocks, 16, 4, k_blocks, 8, 8)
    out[:, :k_blocks].reshape(n_blocks, k_blocks, 8, 16, 8, 4)[...] = tiles.transpose(0, 3, 4, 1, 5, 2)
    parameters = np.zeros((n_blocks, BLOCK_WORDS), np.float32)
    if bias is not None:
        whole = np.zeros(n_blocks * BLOCK, np.float32)
        whole[: len(bias)] = bias
        parameters[:, :BLOCK] = whole.reshape(n_blocks, BLOCK)
    parameters.view(np.int32)[:, BLOCK : BLOCK + 2] = order, ACTIVATION_CODE[activation]
    out[:, k_blocks] = parameters.view(np.uint16)


def conv_matrix(weight: np.ndarray, channels: int) -> np.ndarray:
    """(n, in, 3) -> (n, 3 channels): one group of `channels` columns per tap, in <= channels, zeros after."""
    n, inputs, taps = weight.shape
    out = np.zeros((n, taps, channels), np.float32)
    out[:, :, :inputs] = weight.transpose(0, 2, 1)
    return out.reshape(n, taps * channels)


def slot_matrix(weight: np.ndarray, slots: Sequence[tuple[int, int] | None]) -> np.ndarray:
    """(n, in, 3) -> (n, 8 slots): per slot (tap, group) the weights of 8 channels for that tap, zeros for
    None."""
    n, inputs, _ = weight.shape
    out = np.zeros((n, len(slots), 8), np.float32)
    for index, slot in enumerate(slots):
        if slot is not None:
            tap, group = slot
            channels = weight[:, 8 * group : min(8 * group + 8, inputs), tap]
            out[:, index, : channels.shape[1]] = channels
    return out.reshape(n, -1)
