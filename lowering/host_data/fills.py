"""What the host writes into the kernel arguments: one small description per buffer, each able to fill it.

Kernel argument 0 holds weights and headers in the order of their use, argument 1 the inputs (and whatever the
array writes). A filler gets its buffer as uint16 (blocks, 4096) and fills all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from torch_xdna.kernels_xdna1.contract import BlockOrder
from torch_xdna.lowering.buffers import Buffer, KeyValues, Matrix
from torch_xdna.lowering.host_data import blocks
from torch_xdna.lowering.host_data.conv_input import ConvInput, Slot
from torch_xdna.lowering.limits import BLOCK
from torch_xdna.lowering.ops import Activation

Params = Mapping[str, np.ndarray]


class WeightFiller(Protocol):
    def fill(self, out: np.ndarray, params: Params) -> None: ...


@dataclass(frozen=True)
class HeaderFill:
    """Words 0..31 of a header object (int32)."""

    words: tuple[int, ...]

    def fill(self, out: np.ndarray, params: Params) -> None:
        out[...] = 0
        out.reshape(-1)[:64].view(np.uint32)[: len(self.words)] = np.array(self.words, np.int64).astype(
            np.uint32
        )


@dataclass(frozen=True)
class PanelFill:
    """A linear layer's (n, k) weight, or a convolution's (n, in, 3): with `conv_channels` columns per tap, or 8
    columns per slot."""

    weight: str
    bias: str | None
    k_blocks: int
    order: BlockOrder
    activation: Activation | None
    transposed: bool = False
    conv_channels: int = 0
    slots: tuple[Slot | None, ...] = ()

    def fill(self, out: np.ndarray, params: Params) -> None:
        weight = params[self.weight]
        if self.conv_channels:
            weight = blocks.conv_matrix(weight, self.conv_channels)
        if self.slots:
            weight = blocks.slot_matrix(weight, self.slots)
        if self.transposed:
            weight = weight.T
        bias = params[self.bias] if self.bias else None
        blocks.pack_panels(
            out.reshape(-1, self.k_blocks + 1, BLOCK * BLOCK), weight, bias, self.order, self.activation
        )


@dataclass(frozen=True)
class ParameterFill:
    """Parameter blocks alone: no bias, an output order."""

    order: BlockOrder

    def fill(self, out: np.ndarray, params: Params) -> None:
        nothing = np.zeros((0, 0), np.float32)
        blocks.pack_panels(out.reshape(-1, 1, BLOCK * BLOCK), nothing, None, self.order, None)


@dataclass(frozen=True)
class NormFill:
    """gamma and beta of a layer_norm, one object of fp32 each, zeros beyond the width."""

    gamma: str | None
    beta: str | None
    width: int

    def fill(self, out: np.ndarray, params: Params) -> None:
        vectors = np.zeros((2, out.size // 4), np.float32)
        vectors[0, : self.width] = 1.0 if self.gamma is None else params[self.gamma]
        vectors[1, : self.width] = 0.0 if self.beta is None else params[self.beta]
        out.reshape(-1)[...] = vectors.view(np.uint16).reshape(-1)


@dataclass(frozen=True)
class MatrixFill:
    """A parameter that is added to an activation: A order, rounded to bf16."""

    name: str
    row_blocks: int
    col_blocks: int

    def fill(self, out: np.ndarray, params: Params) -> None:
        out[...] = blocks.pack_a(params[self.name], self.row_blocks, self.col_blocks).reshape(out.shape)


@dataclass(frozen=True)
class InputFill:
    """How the host writes input `index` of the region."""

    index: int
    form: str  # "A", "K", "V", "frames"
    target: Matrix | KeyValues | ConvInput

    def fill(self, activations: np.ndarray, matrix: np.ndarray) -> None:
        """`activations`: the whole argument as uint16 (blocks, 4096)."""
        buffer = self.target.buffer
        out = activations[buffer.offset : buffer.offset + buffer.blocks]
        if isinstance(self.target, ConvInput):
            self.target.write(out, matrix)
        elif isinstance(self.target, KeyValues):
            pack = blocks.pack_keys if self.form == "K" else blocks.pack_values
            heads, keys = self.target.heads, self.target.key_blocks
            out.reshape(heads, keys, 2, -1)[:, :, int(self.form == "V")] = pack(matrix, keys, heads)
        else:
            packed = blocks.pack_a(matrix, self.target.row_blocks, self.target.col_blocks)
            out[...] = packed.reshape(out.shape)


@dataclass(frozen=True)
class HeaderTarget:
    """Where a header object lies among the activations."""

    buffer: Buffer


@dataclass(frozen=True)
class HeaderInput:
    """A header object that the host writes with each call's inputs, since it depends on their length."""

    target: HeaderTarget
    words: tuple[int, ...]
    index: int = 0  # of an input of the region; which one does not matter

    def fill(self, activations: np.ndarray, matrix: np.ndarray) -> None:
        """As `InputFill.fill`; the matrix is not looked at."""
        buffer = self.target.buffer
        HeaderFill(self.words).fill(activations[buffer.offset : buffer.offset + buffer.blocks], {})


@dataclass(frozen=True)
class OutputTake:
    """How the host reads output `index` of the region."""

    matrix: Matrix
    rows: int
    cols: int

    def take(self, activations: np.ndarray) -> np.ndarray:
        buffer = self.matrix.buffer
        found = activations[buffer.offset : buffer.offset + buffer.blocks]
        grid = found.reshape(self.matrix.row_blocks, self.matrix.col_blocks, -1)
        return blocks.unpack_a(grid, self.rows, self.cols)
