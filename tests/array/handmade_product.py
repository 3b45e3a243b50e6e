"""Small programs written by hand, and kernels in numpy: the simulator's tests do not depend on lowering or on
g++.

The program is one matrix product: x (256 g, 64 kb) @ w.T (64 kb, 64 * columns) + bias, on `columns` columns.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import pytest

from torch_xdna.devices.array import HardwareFault, RunStats, Simulator
from torch_xdna.lowering.commands.commands import Dma, Wait, token_id
from torch_xdna.lowering.commands.encode import encode
from torch_xdna.lowering.commands.registers import MM2S, S2MM
from torch_xdna.lowering.host_data.bf16 import from_bf16, to_bf16
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.overlay.description import KERNELS

BLOCK_WORDS = 2048
BLOCK_BYTES = 8192


def a_order(block: np.ndarray) -> np.ndarray:
    """(64, 64) -> 4x8 tiles."""
    return block.reshape(16, 4, 8, 8).transpose(0, 2, 1, 3).reshape(-1)


def from_a_order(flat: np.ndarray) -> np.ndarray:
    return flat.reshape(16, 8, 4, 8).transpose(0, 2, 1, 3).reshape(64, 64)


def b_order(block: np.ndarray) -> np.ndarray:
    """(64 k, 64 n) -> 8x4 tiles."""
    return block.reshape(8, 8, 16, 4).transpose(0, 2, 1, 3).reshape(-1)


def _array(address: int, dtype: type, count: int) -> np.ndarray:
    size = np.dtype(dtype).itemsize * count
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=dtype)


def numpy_kernels() -> dict:
    """The matrix product's kernels, straight from their definition; the others only exist."""

    def read_header(a: int, hdr: int) -> None:
        ctypes.memmove(hdr, a, 128)

    def gemm_init(acc: int) -> None:
        _array(acc, np.float32, 4096)[:] = 0

    def gemm_step(a: int, b: int, acc: int) -> None:
        x = from_a_order(from_bf16(_array(a, np.uint16, 4096)))
        w = from_bf16(_array(b, np.uint16, 4096)).reshape(8, 16, 8, 4).transpose(0, 2, 1, 3).reshape(64, 64)
        tiles = (x @ w).reshape(16, 4, 16, 4).transpose(0, 2, 1, 3)
        _array(acc, np.float32, 4096)[:] += tiles.reshape(-1)

    def gemm_params(b: int, acc: int, hdr: int) -> None:
        tiles = _array(acc, np.float32, 4096).reshape(16, 16, 4, 4)
        tiles += _array(b, np.float32, 64).reshape(1, 16, 1, 4)

    def gemm_residual(a: int, acc: int, q: int, column: int) -> None:
        if q == column:
            x = from_a_order(from_bf16(_array(a, np.uint16, 4096)))
            _array(acc, np.float32, 4096)[:] += x.reshape(16, 4, 16, 4).transpose(0, 2, 1, 3).reshape(-1)

    def gemm_finish(acc: int, c: int, hdr: int, o: int, row: int) -> None:
        whole = _array(acc, np.float32, 4096).reshape(16, 16, 4, 4).transpose(0, 2, 1, 3).reshape(64, 64)
        _array(c, np.uint16, 4096)[:] = to_bf16(a_order(whole))

    found = dict(locals())
    return {name: found.get(name, lambda *_: None) for name in KERNELS}


@dataclass
class Product:
    """A program with its memory. `commands` may be changed before `words` is read."""

    commands: list
    weights: np.ndarray
    activations: np.ndarray
    expected: np.ndarray  # (rows, cols)
    columns: int
    groups: int
    output: int  # byte offset in the activations

    @property
    def words(self) -> np.ndarray:
        return encode(self.commands)

    @property
    def written(self) -> list:
        return [None, [(0, self.output)]]

    def result(self) -> np.ndarray:
        blocks = from_bf16(self.activations[self.output :].view(np.uint16)).reshape(
            4 * self.groups, self.columns, 4096
        )
        rows = [np.concatenate([from_a_order(b) for b in row], axis=1) for row in blocks]
        return np.concatenate(rows)


def product(columns: int = 4, groups: int = 2, k_blocks: int = 3, seed: int = 0) -> Product:
    """x @ w.T + bias with one output block column per array column."""
    rng = np.random.default_rng(seed)
    rows, depth, width = 256 * groups, 64 * k_blocks, 64 * columns
    x = from_bf16(to_bf16(rng.standard_normal((rows, depth), dtype=np.float32)))
    w = from_bf16(to_bf16(rng.standard_normal((width, depth), dtype=np.float32)))
    bias = rng.standard_normal(width, dtype=np.float32)

    header = np.zeros(BLOCK_WORDS, dtype=np.int32)
    header[:9] = [1, groups, k_blocks, 0, 0, 0, 0, rows, groups]
    parts = [header.view(np.uint8)] * (4 // columns)  # one per row that the A object serves
    for n in range(columns):
        for k in range(k_blocks):
            block = w[64 * n : 64 * n + 64, 64 * k : 64 * k + 64].T
            parts.append(to_bf16(b_order(np.ascontiguousarray(block))).view(np.uint8))
        parameters = np.zeros(BLOCK_WORDS, dtype=np.float32)
        parameters[:64] = bias[64 * n : 64 * n + 64]
        parts.append(parameters.view(np.uint8))
    blocks = x.reshape(4 * groups, 64, k_blocks, 64).transpose(0, 2, 1, 3)
    packed = np.stack([to_bf16(a_order(b)) for b in blocks.reshape(-1, 64, 64)]).reshape(-1).view(np.uint8)
    output = packed.nbytes
    activations = np.concatenate([packed, np.full(4 * groups * columns * BLOCK_BYTES, 0xFF, dtype=np.uint8)])

    per = 4 // columns  # rows of cores that one A object serves
    channels = [(S2MM, 0), (MM2S, 0), (MM2S, 1)]
    commands: list = [token_id(c, *channel) for c in range(columns) for channel in channels]
    for c in range(columns):
        commands.append(Dma(c, S2MM, 0, 8, 1, output // 4 + c * BLOCK_WORDS, (groups, 4, 4, 512),
                            (4 * columns * BLOCK_WORDS, columns * BLOCK_WORDS, 512, 1)))  # fmt: skip
        commands.append(Dma(c, MM2S, 0, 0, 0, 0, (1, 1, 1, per * BLOCK_WORDS), (0, 0, 0, 1)))
        start = c * per * k_blocks * BLOCK_WORDS
        if per == 1:
            sizes, strides = (groups, k_blocks, 4, 512), (4 * k_blocks * BLOCK_WORDS, BLOCK_WORDS, 512, 1)
            commands.append(Dma(c, MM2S, 0, 1, 1, start, sizes, strides))
        else:  # per k, the blocks of the rows follow each other
            for g in range(groups):
                first = start + g * 4 * k_blocks * BLOCK_WORDS
                sizes, strides = (k_blocks, per, 4, 512), (BLOCK_WORDS, k_blocks * BLOCK_WORDS, 512, 1)
                commands.append(Dma(c, MM2S, 0, 1 + g, 1, first, sizes, strides))
        panel = (per + c * (k_blocks + 1)) * BLOCK_WORDS
        commands.append(
            Dma(c, MM2S, 1, 4, 0, panel, (groups, k_blocks + 1, 4, 512), (0, BLOCK_WORDS, 512, 1))
        )
    commands += [Wait(c, S2MM, 0) for c in range(columns)]
    return Product(commands, np.concatenate(parts), activations, x @ w.T + bias, columns, groups, output)


def run(made: Product, simulator: Simulator | None = None, **options: object) -> RunStats:
    """On a simulator with kernels in numpy, if none is given."""
    simulator = simulator or Simulator(overlay(made.columns), kernels=numpy_kernels())
    results = [[], [(made.output, made.activations.nbytes - made.output)]]
    return simulator.run(made.words, [made.weights, made.activations], made.written, results, **options)


def refusal(made: Product, kind: str) -> str:
    """The sentence with which the simulator refuses the program."""
    with pytest.raises(HardwareFault) as caught:
        run(made)
    assert caught.value.kind == kind, caught.value
    return str(caught.value)


def first(made: Product, direction: str, column: int = 0, channel: int = 0) -> int:
    """The index of the first transfer on a channel."""
    return next(
        i for i, c in enumerate(made.commands)
        if isinstance(c, Dma) and (c.direction, c.column, c.channel) == (direction, column, channel)
    )  # fmt: skip
