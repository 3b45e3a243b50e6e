"""Every mistake in a program is refused or gives wrong results: nothing goes unnoticed that is not equivalent.

Survivors must be explained: either the stream means the same (computed, see `meaning`), or `EQUIVALENT` says why the
change can't matter. A survivor without a reason fails, and so does a reason that no survivor needs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from array_mutants import (
    Mutant,
    bit_mutants,
    command_mutants,
    header_mutants,
    overlay_mutants,
    token_id_mutants,
)
from array_regions import Prepared, attention, convolution, layer_norm, residual

from torch_xdna.devices.array import HardwareFault, Simulator
from torch_xdna.devices.array.transfer import parse
from torch_xdna.kernels_xdna1.host import KernelError, load
from torch_xdna.lowering.commands.commands import AddressPatch, BlockWrite, MaskWrite, Wait, Write32
from torch_xdna.lowering.commands.decode import DecodeError, records
from torch_xdna.lowering.commands.registers import CONTROL, DESCRIPTOR_BASE, QUEUE
from torch_xdna.lowering.errors import LimitError
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.overlay.description import KERNELS, check

# Sizes that fill every block: in padding, mistakes would have no effect.
PROGRAMS = {
    "gemm": lambda: residual(rows=512, n=512),
    "gather": lambda: convolution(rows=1024, n=256),
    "row op": lambda: layer_norm(rows=512, cols=512),
    "attention": lambda: attention(rows=512, heads=4),
}

EQUIVALENT = {
    "gemm": {
        r"[AB]_\w+ depth \d": "one buffer less: the same objects in the same order, only later",
        r"C_out\d depth 1": "one buffer less: the same objects in the same order, only later",
        r"h\[6\] = -1": "rows are counted from 0: none is between -1 and 0",
        r"h\[7\] = (\d{10})": "all of the 512 rows are valid either way",
    },
    "gather": {
        r"[AB]_\w+ depth \d": "one buffer less: the same objects in the same order, only later",
        r"C_out\d depth 1": "one buffer less: the same objects in the same order, only later",
        r"h\[2\] = -1": "the loop over k blocks has no trips either way",
        r"bit 24 of word 637": "a header read in steps of 16 words: those that this op looks at are the first 16",
        r"h\[6\] = -1": "rows are counted from 0: none is between -1 and 0",
        r"h\[7\] = (\d{10})": "all of the 512 rows are valid either way",
    },
    "row op": {
        r"[AB]_\w+ depth \d": "one buffer less: the same objects in the same order, only later",
        r"C_out\d depth 1": "one buffer less: the same objects in the same order, only later",
        r"h\[10\] = 92535338\d": "the last bit of eps = 1e-5, far below the rounding of the results",
        r"h\[12\] = (513|\d{10})": "the row fills its last block either way",
    },
    "attention": {
        r"[AB]_\w+ depth \d": "one buffer less: the same objects in the same order, only later",
        r"C_out\d depth 1": "one buffer less: the same objects in the same order, only later",
        r"h\[1[01]\] = -?\d{10}": "the kernel takes these as bf16, which drops the last bit of the fp32",
    },
}


def mutants(prepared: Prepared, op: str) -> Iterator[Mutant]:
    yield from command_mutants(prepared, every=12)
    yield from header_mutants(prepared)
    yield from bit_mutants(prepared, count=40)
    yield from overlay_mutants(overlay(4), op)
    yield from token_id_mutants(prepared)


def verdict(prepared: Prepared, right: list[np.ndarray], mutant: Mutant) -> str:
    """How a mutant was noticed, or "survived"."""
    words = mutant.stream(prepared)
    if words is None:
        return "refused by the encoder"
    weights = prepared.weights
    if mutant.header is not None:
        weights = weights.copy()
        weights[:128].view(np.int32)[mutant.header[0]] = mutant.header[1]
    # A wrong core program hands kernels wrong addresses: only the checked build may run it.
    kernels = {name: getattr(load(debug=True), name) for name in KERNELS} if mutant.array else True
    try:
        if mutant.array is not None:
            check(mutant.array)
        result, _ = prepared.run(Simulator(mutant.array or overlay(4), kernels=kernels), words, weights)
    except (HardwareFault, DecodeError, LimitError, KernelError) as refusal:
        return f"refused: {refusal.kind if isinstance(refusal, HardwareFault) else type(refusal).__name__}"
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(result, right))
    return "survived" if same else "wrong results"


def meaning(words: np.ndarray) -> list[object]:
    """What a stream makes the shims do: every transfer's words in order, its channel, its token's id, and the waits.

    Which descriptor carries a transfer is left out, and so is what only the speed depends on.
    """
    done: list[object] = []
    registers: dict[tuple[int, int], list[int]] = {}
    patches: dict[tuple[int, int], tuple[int, int]] = {}
    control: dict[tuple[int, int], tuple[int, int]] = {}
    channels = {address: channel for channel, address in QUEUE.items()}
    for record in records(words):
        if isinstance(record, Wait):
            done.append(record)
        elif isinstance(record, BlockWrite):
            registers[record.column, (record.address - DESCRIPTOR_BASE) // 32] = list(record.words)
        elif isinstance(record, AddressPatch):
            patches[record.column, (record.address - DESCRIPTOR_BASE) // 32] = (record.arg, record.offset)
        elif isinstance(record, MaskWrite):
            control[record.column, record.address] = (record.value, record.mask)
        else:
            assert isinstance(record, Write32)
            key = (record.column, record.value & 0xF)
            arg, offset = patches[key]
            transfer, _ = parse(registers[key], offset, (record.value >> 16 & 0xFF) + 1, "")
            token = bool(record.value >> 31)
            channel = channels[record.address]
            id = control.get((record.column, CONTROL[channel])) if token else None
            done.append((record.column, channel, token, id, arg, transfer.indices().tobytes()))
    return done


@pytest.mark.parametrize("op", PROGRAMS)
def test_every_mutant_is_noticed_or_explained(op: str) -> None:
    prepared = Prepared.of(PROGRAMS[op]())
    right, _ = prepared.run()
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    unexplained = []
    for mutant in mutants(prepared, op):
        how = verdict(prepared, right, mutant)
        counts[how] += 1
        if how != "survived":
            continue
        pattern = next((p for p in EQUIVALENT[op] if re.fullmatch(p, mutant.name)), None)
        words = mutant.stream(prepared)
        if pattern is not None:
            reasons[pattern] += 1
        elif (
            words is None
            or mutant.array
            or mutant.header
            or meaning(words) != meaning(prepared.program.words)
        ):
            unexplained.append(mutant.name)
    noticed = sum(counts.values()) - counts["survived"]
    print(
        f"{op}: {noticed} of {sum(counts.values())} mutants noticed: {dict(counts)}; explained: {dict(reasons)}"
    )
    assert not unexplained, unexplained
    assert noticed >= 100
    assert set(reasons) == set(EQUIVALENT[op]), "a reason that no survivor needs"


@pytest.mark.parametrize("op", PROGRAMS)
def test_every_wrong_token_id_is_refused_as_one(op: str) -> None:
    """Not by its results, which are right in the simulator: on hardware the wait for that token would never end."""
    prepared = Prepared.of(PROGRAMS[op]())
    right, _ = prepared.run()
    made = list(token_id_mutants(prepared))
    assert len(made) == 6 * 3 * prepared.program.columns  # A, B and C of every column
    assert {verdict(prepared, right, mutant) for mutant in made} == {"refused: token"}
