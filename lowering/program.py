"""A lowered region: instruction words, the two kernel arguments, and how the host fills and reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from torch_xdna.lowering.buffers import Buffer
from torch_xdna.lowering.commands.commands import Command
from torch_xdna.lowering.host_data.fills import HeaderInput, InputFill, OutputTake, WeightFiller
from torch_xdna.lowering.limits import BLOCK, BLOCK_BYTES

Range = tuple[int, int]  # byte offset, byte size


@dataclass(frozen=True)
class StepFacts:
    """One step of a program, for reports and the time model.

    `commands`: indices [first, last) in `Program.commands` between which all of its commands lie; the headers
    and weights of a step are sent while the one before still runs, so ranges overlap. `a_bytes`, `b_bytes`,
    `c_bytes`: moved by all shims on that path. `kernel_calls`: per core. `trips`: of the cores' outer loop.
    """

    name: str
    kind: str  # gemm, reorder, gather, zeros, attention, layer_norm, softmax, gelu, add
    shape: str
    commands: tuple[int, int]
    a_bytes: int
    b_bytes: int
    c_bytes: int
    trips: int
    kernel_calls: Mapping[str, int]

    @property
    def bytes_moved(self) -> int:
        """By all shims on all paths."""
        return self.a_bytes + self.b_bytes + self.c_bytes


@dataclass(frozen=True)
class Placement:
    """Bytes of the two kernel arguments and where each buffer lies."""

    weights_bytes: int
    activations_bytes: int
    buffers: tuple[Buffer, ...]


@dataclass(frozen=True)
class Program:
    """What a run executes: the instruction words of each of its `dispatches`, one after another on the same
    arguments. `commands` are those of all of them; `step_of_command` gives the index in `steps` of the step it
    belongs to.

    Kernel call: (opcode 3, instruction buffer, number of words, weights, activations).
    """

    name: str
    columns: int
    commands: tuple[Command, ...]
    step_of_command: tuple[int, ...]
    steps: tuple[StepFacts, ...]
    memory: Placement
    weights: tuple[tuple[Buffer, WeightFiller], ...]
    inputs: tuple[InputFill | HeaderInput, ...]
    outputs: tuple[OutputTake, ...]
    dispatches: tuple[np.ndarray, ...] = field(repr=False, compare=False)
    generation_seconds: float = field(default=0.0, compare=False)

    @property
    def words(self) -> np.ndarray:
        """The instruction words of a program of one dispatch; ValueError for one that is split."""
        (words,) = self.dispatches
        return words

    @property
    def instruction_bytes(self) -> int:
        """Of all dispatches."""
        return sum(words.nbytes for words in self.dispatches)

    @property
    def weights_bytes(self) -> int:
        """Size of kernel argument 0: weights and headers."""
        return self.memory.weights_bytes

    @property
    def activations_bytes(self) -> int:
        """Size of kernel argument 1: inputs, everything in between, results."""
        return self.memory.activations_bytes

    def pack_weights(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        """Kernel argument 0 (uint8) for `params`: parameters by name (fp32, torch's shapes); headers included."""
        out = np.empty((self.weights_bytes // BLOCK_BYTES, BLOCK * BLOCK), np.uint16)
        for buffer, filler in self.weights:
            filler.fill(out[buffer.offset : buffer.offset + buffer.blocks], params)
        return out.reshape(-1).view(np.uint8)

    def pack_inputs(self, inputs: Sequence[np.ndarray], activations: np.ndarray) -> None:
        """Write the region's inputs (fp32, rows x cols each) into kernel argument 1 (uint8), in place."""
        blocks = _as_blocks(activations)
        for fill in self.inputs:
            fill.fill(blocks, inputs[fill.index])

    def unpack_outputs(self, activations: np.ndarray) -> list[np.ndarray]:
        """The region's outputs (fp32, rows x cols each) from kernel argument 1 (uint8)."""
        blocks = _as_blocks(activations)
        return [output.take(blocks) for output in self.outputs]

    @property
    def input_ranges(self) -> list[Range]:
        """Parts of kernel argument 1 to sync to the device before a dispatch."""
        return _ranges([fill.target.buffer for fill in self.inputs])

    @property
    def result_ranges(self) -> list[Range]:
        """The parts of kernel argument 1 that hold results: a range per row of blocks with a true row, its blocks
        with a true column."""
        return [
            ((m.buffer.offset + i * m.col_blocks) * BLOCK_BYTES, -(-output.cols // BLOCK) * BLOCK_BYTES)
            for output in self.outputs
            for m in [output.matrix]
            for i in range(-(-output.rows // BLOCK))
        ]


def _as_blocks(activations: np.ndarray) -> np.ndarray:
    return activations.view(np.uint16).reshape(-1, BLOCK * BLOCK)


def _ranges(buffers: Sequence[Buffer]) -> list[Range]:
    """Byte ranges of buffers, neighbours joined."""
    ranges: list[Range] = []
    for start, size in sorted({(b.offset * BLOCK_BYTES, b.blocks * BLOCK_BYTES) for b in buffers}):
        if ranges and sum(ranges[-1]) == start:
            start, size = ranges[-1][0], ranges[-1][1] + size
            ranges.pop()
        ranges.append((start, size))
    return ranges
