"""The smallest programs that show one thing each: a token, a form of descriptor, an object through every FIFO,
one kernel on one block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from torch_xdna.lowering import Program, lower
from torch_xdna.lowering.buffers import Forms
from torch_xdna.lowering.commands.commands import Dma, Wait
from torch_xdna.lowering.commands.encode import encode
from torch_xdna.lowering.commands.registers import MM2S
from torch_xdna.lowering.host_data.bf16 import round_bf16
from torch_xdna.lowering.limits import BLOCK, CORE_ROWS
from torch_xdna.lowering.ops import Attention, Gelu, LayerNorm, Param, Softmax
from torch_xdna.selftest.cases import Case, add_region, linear, single

LINEAR = Forms(wrapped=False, repeated=False, iterated=False)
FORMS = {
    "linear": {},
    "wrapped": {"A": replace(LINEAR, wrapped=True), "B": replace(LINEAR, wrapped=True)},
    "wrapped, from the array": {"C": replace(LINEAR, wrapped=True)},
    "repeated": {"A": replace(LINEAR, repeated=True), "B": replace(LINEAR, repeated=True)},
    "iterated": {"A": replace(LINEAR, iterated=True), "B": replace(LINEAR, iterated=True)},
    "iterated, from the array": {"C": replace(LINEAR, iterated=True)},
}


def one_token(columns: int, column: int | None = None, channel: int | None = None) -> tuple[Case, Program]:
    """One block of x + y per column, where of the channels that read memory only `channel` of `column` asks for
    a token and is waited for. Transfers into memory always give one: they show that the run is over."""
    case = Case("token", add_region(BLOCK, BLOCK))
    program = lower(case.region, columns=columns, iterated=False)
    commands, steps = [], []
    for command, step in zip(program.commands, program.step_of_command):
        silent = isinstance(command, Dma | Wait) and (
            command.direction == MM2S and (command.column, command.channel) != (column, channel)
        )
        if silent and isinstance(command, Wait):
            continue
        if silent and isinstance(command, Dma):
            command = replace(command, issue_token=False)
        commands.append(command)
        steps.append(step)
    words = encode(commands, device_columns=columns)
    return case, replace(program, commands=tuple(commands), step_of_command=tuple(steps), dispatches=(words,))


def of_form(name: str, columns: int) -> tuple[Case, Program]:
    """A product whose transfers are plain runs but for one form, which it does have."""
    case = Case(f"descriptors: {name}", linear(300, 256, 512))
    forms = {path: FORMS[name].get(path, LINEAR) for path in "ABC"}
    return case, lower(case.region, columns=columns, forms=forms)


class Identity(Case):
    """Every core copies its block: y's block column j is x, for every column of the array."""

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        (weight, bias) = self.region.params
        return {
            weight.name: np.tile(np.eye(BLOCK, dtype=np.float32), (weight.shape[0] // BLOCK, 1)),
            bias.name: np.zeros(bias.shape, np.float32),
        }

    def wrong_cores(self, output: np.ndarray, columns: int) -> list[str]:
        """The cores whose block is not x's, by the product's order of blocks."""
        (x,) = self.inputs
        wanted = np.tile(round_bf16(x), (1, output.shape[1] // BLOCK))
        wrong = (output != wanted).reshape(CORE_ROWS, BLOCK, -1, BLOCK).any((1, 3))
        cores = {(int(j) % columns, int(i)) for i, j in zip(*wrong.nonzero())}
        return [f"column {column}, row {row}" for column, row in sorted(cores)]


def identity() -> Identity:
    return Identity("objects", linear(CORE_ROWS * BLOCK, BLOCK, 4 * BLOCK))


def kernels() -> Iterator[tuple[str, Case]]:
    """(the C++ kernels that it runs, a case of one block)."""
    two = [(BLOCK, BLOCK)] * 2
    vectors = [Param("gamma", (BLOCK,)), Param("beta", (BLOCK,))]
    attention = Attention(3, q=0, k=1, v=2, heads=1)
    for name, region in (
        ("gemm_init, gemm_step, gemm_params, gemm_finish", linear(BLOCK, BLOCK, BLOCK)),
        ("gemm_finish with gelu", linear(BLOCK, BLOCK, BLOCK, gelu=True)),
        ("gemm_residual", linear(BLOCK, BLOCK, BLOCK, residual=True)),
        ("row_apply: add", add_region(BLOCK, BLOCK)),
        ("row_apply: gelu", single(Gelu(1, x=0), two)),
        ("row_stats, row_apply: layer_norm", single(LayerNorm(1, x=0, gamma="gamma", beta="beta"), two, vectors)),
        ("row_stats, row_apply: softmax", single(Softmax(1, x=0), two)),
        ("attn_q, attn_k, attn_init, attn_finish", single(attention, [(BLOCK, BLOCK)] * 4)),
    ):  # fmt: skip
        yield name, Case(name, region)
