"""Inside the sandbox: a program that needs no lowering, and the array that a test plays for it.

outputs = 2 * inputs + weights, elementwise over bf16 blocks; the instruction words are a marker that the
array checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sandbox import inside

from torch_xdna.devices import npu
from torch_xdna.lowering.host_data.bf16 import from_bf16, to_bf16

BLOCK = 8192
MARKER = 0x6E7075


class Toy:
    """`blocks` blocks of 64 x 64 in, as many out. `words`: length of its instruction stream, `parts` of them."""

    def __init__(self, blocks: int = 2, words: int = 64, parts: int = 1) -> None:
        self.blocks, self.size = blocks, blocks * BLOCK
        self.dispatches = (np.full(words, MARKER, np.uint32),) * parts
        self.weights_bytes, self.activations_bytes = self.size, 2 * self.size
        self.input_ranges, self.result_ranges = [(0, self.size)], [(self.size, self.size)]

    def pack_weights(self, value: float) -> np.ndarray:
        return to_bf16(np.full(self.size // 2, value, np.float32)).view(np.uint8)

    def pack_inputs(self, inputs: Sequence[np.ndarray], activations: np.ndarray) -> None:
        activations[: self.size] = to_bf16(inputs[0]).view(np.uint8).reshape(-1)

    def unpack_outputs(self, activations: np.ndarray) -> list[np.ndarray]:
        return [from_bf16(activations[self.size :].view(np.uint16)).reshape(-1, 64)]

    def clip(self, value: float) -> list[np.ndarray]:
        return [np.full((self.size // 128, 64), value, np.float32)]


def array(words: np.ndarray, arguments: list[np.ndarray]) -> int | None:
    """The array's side of a Toy."""
    assert (words == MARKER).all(), "the instruction words arrived damaged"
    weights, activations = arguments
    half = activations.size // 2
    x, w = (from_bf16(a.view(np.uint16)) for a in (activations[:half], weights))
    activations[half:] = to_bf16(2 * x + w[: x.size]).view(np.uint8)
    return None


class Session:
    """An opened NPU with one loaded toy, and a run of it that says what came out."""

    def __init__(self, xclbin: str, blocks: int = 2, plays: Callable = array, **options: Any) -> None:
        inside.play(plays)
        self.npu = npu.runtime(xclbin, **{"patience": 1.0, "run_timeout": 1.0, **options})
        self.toy = Toy(blocks)
        self.program = npu.load(self.npu, self.toy)
        self.weights = self.program.upload(self.toy.pack_weights(1.0))

    def run(self, value: float = 3.0) -> float:
        """One clip; the single value that fills the output (2 * value + 1), checked to fill all of it."""
        return self.batch([value])[0]

    def batch(self, values: Sequence[float]) -> list[float]:
        found = []
        for (output,) in self.program.run([self.toy.clip(v) for v in values], self.weights):
            assert (output == output[0, 0]).all() and output.shape == (self.toy.size // 128, 64)
            found.append(float(output[0, 0]))
        return found


def outcome(call: Callable[[], Any]) -> Any:
    """The result of a call, or the class and sentence of the error it raised."""
    try:
        return call()
    except Exception as error:
        return [type(error).__name__, str(error)]


def slowly(seconds: float) -> Callable:
    def play(words: np.ndarray, arguments: list[np.ndarray]) -> int | None:
        time.sleep(seconds)
        return array(words, arguments)

    return play
