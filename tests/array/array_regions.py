"""Small regions, their data, and one run of them on the array; shared by this folder's tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torch_xdna.devices.array import RunStats, Simulator
from torch_xdna.lowering import lower, ops
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.program import Program

POISON = 0xFF


def _region(
    name: str, op: ops.Op, shapes: list[tuple[int, int]], params: dict[str, tuple[int, ...]]
) -> ops.Region:
    values = tuple(ops.Value(i, *shape) for i, shape in enumerate(shapes))
    described = tuple(ops.Param(n, s) for n, s in params.items())
    return ops.Region(values, tuple(range(len(shapes) - 1)), (op.out,), described, (op,), name)


def linear(rows: int = 300, k: int = 128, n: int = 320, gelu: bool = False) -> ops.Region:
    op = ops.Linear(1, x=0, weight="w", bias="b", activation=ops.Activation.GELU if gelu else None)
    return _region("linear", op, [(rows, k), (rows, n)], {"w": (n, k), "b": (n,)})


def residual(rows: int = 300, n: int = 320) -> ops.Region:
    op = ops.Linear(2, x=0, weight="w", bias="b", residual=1)
    return _region("residual", op, [(rows, 128), (rows, n), (rows, n)], {"w": (n, 128), "b": (n,)})


def convolution(rows: int = 300, channels: int = 80, n: int = 128, stride: int = 2) -> ops.Region:
    op = ops.Conv1d(1, x=0, weight="w", bias="b", stride=stride, activation=ops.Activation.GELU)
    shapes = [(rows, channels), (-(-rows // stride), n)]
    return _region("convolution", op, shapes, {"w": (n, channels, 3), "b": (n,)})


def layer_norm(rows: int = 300, cols: int = 384) -> ops.Region:
    op = ops.LayerNorm(1, x=0, gamma="g", beta="b")
    return _region("layer_norm", op, [(rows, cols)] * 2, {"g": (cols,), "b": (cols,)})


def softmax(rows: int = 100, cols: int = 150) -> ops.Region:
    return _region("softmax", ops.Softmax(1, x=0), [(rows, cols)] * 2, {})


def gelu(rows: int = 100, cols: int = 150) -> ops.Region:
    return _region("gelu", ops.Gelu(1, x=0), [(rows, cols)] * 2, {})


def add(rows: int = 100, cols: int = 150) -> ops.Region:
    return _region("add", ops.Add(2, x=0, y=1), [(rows, cols)] * 3, {})


def attention(rows: int = 300, heads: int = 3) -> ops.Region:
    op = ops.Attention(3, q=0, k=1, v=2, heads=heads)
    return _region("attention", op, [(rows, 64 * heads)] * 4, {})


SMALL = {f.__name__: f for f in (linear, convolution, residual, layer_norm, softmax, gelu, add, attention)}


def parameters(region: ops.Region, seed: int = 0) -> dict[str, np.ndarray]:
    """Of trained-like size: matrices scaled by their depth, vectors around a constant."""
    rng = np.random.default_rng(seed)
    return {
        p.name: (
            rng.standard_normal(p.shape) * (np.prod(p.shape[1:]) ** -0.5 if len(p.shape) > 1 else 0.5)
        ).astype(np.float32)
        for p in region.params
    }


def clip(region: ops.Region, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal((region.value(i).rows, region.value(i).cols), dtype=np.float32)
        for i in region.inputs
    ]


@dataclass
class Prepared:
    """A program and its memory; `run` executes words (the program's own by default) on fresh activations."""

    program: Program
    weights: np.ndarray
    inputs: list[np.ndarray]

    @classmethod
    def of(cls, region: ops.Region, columns: int = 4, seed: int = 0) -> Prepared:
        program = lower(region, columns=columns)
        return cls(program, program.pack_weights(parameters(region, seed)), clip(region, seed + 1))

    def run(
        self,
        simulator: Simulator | None = None,
        words: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        trace: bool = False,
    ) -> tuple[list[np.ndarray], RunStats]:
        program = self.program
        activations = np.full(program.activations_bytes, POISON, dtype=np.uint8)
        program.pack_inputs(self.inputs, activations)
        simulator = simulator or Simulator(overlay(program.columns))
        stats = simulator.run(
            program.words if words is None else words,
            [self.weights if weights is None else weights, activations],
            [None, program.input_ranges],
            [[], program.result_ranges],
            trace=trace,
        )
        return program.unpack_outputs(activations), stats
