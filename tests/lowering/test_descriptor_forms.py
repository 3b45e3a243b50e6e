"""Lowering without some forms of descriptors: the forms are gone, the array's bits are the same."""

from __future__ import annotations

import numpy as np
import pytest

from torch_xdna.lowering import lower
from torch_xdna.lowering.buffers import Forms, Pattern
from torch_xdna.lowering.commands.commands import Dma
from torch_xdna.lowering.program import Program
from torch_xdna.lowering.streams.descriptors import fit
from torch_xdna.selftest.cases import Case, all_cases


def form(dma: Dma) -> str:
    if dma.sizes[0] > 1:
        return "iterated" if dma.strides[0] else "repeated"
    return "linear" if dma.linear else "wrapped"


def forms_of(program: Program) -> set[str]:
    return {form(command) for command in program.commands if isinstance(command, Dma)}


def on_the_array(program: Program, case: Case) -> list[np.ndarray]:
    from torch_xdna.devices.array import Simulator
    from torch_xdna.lowering.overlay import overlay

    weights = program.pack_weights(case.params)
    activations = np.zeros(program.activations_bytes, np.uint8)
    program.pack_inputs(case.inputs, activations)
    Simulator(overlay(program.columns)).run(program.words, [weights, activations])
    return program.unpack_outputs(activations)


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("case", list(all_cases(quick=True)), ids=lambda case: case.name)
def test_same_bits_without_iteration(case: Case, columns: int) -> None:
    usual, without = (lower(case.region, columns=columns, iterated=i) for i in (True, False))
    assert "iterated" not in forms_of(without)
    for a, b in zip(on_the_array(usual, case), on_the_array(without, case), strict=True):
        assert np.array_equal(a, b)


def test_the_usual_stream_iterates() -> None:
    """Else the test above would show nothing."""
    assert any("iterated" in forms_of(lower(case.region)) for case in all_cases(quick=True))


@pytest.mark.parametrize("allowed", [(), ("wrapped",), ("repeated",), ("iterated",)], ids=str)
def test_one_form_at_a_time(allowed: tuple[str, ...]) -> None:
    case = next(all_cases(quick=True))
    forms = Forms(**{name: name in allowed for name in ("wrapped", "repeated", "iterated")})
    program = lower(case.region, columns=1, forms=dict.fromkeys("ABC", forms))
    assert forms_of(program) <= {"linear", *allowed}
    for a, b in zip(on_the_array(program, case), on_the_array(lower(case.region), case), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("forms", [Forms(), Forms(iterated=False), Forms(False, False, False)], ids=str)
@pytest.mark.parametrize(
    "pattern",
    [
        (0, ((70, 8192), (3, 0)), 2048),
        (64, ((5, 100000), (3, 4096)), 1536),
        (0, ((7, 4096),), 1500),
        (0, ((2, 1 << 21), (300, 2048)), 512),
        (0, ((4, 0), (4, 65536), (9, 16)), 8),
    ],
    ids=str,
)
def test_the_words_are_the_patterns(pattern: tuple, forms: Forms) -> None:
    """Whatever the forms, the pieces walk the pattern's words in its order."""

    def words(base: int, loops: list[tuple[int, int]], run: int) -> np.ndarray:
        found = np.arange(run)
        for count, step in reversed(loops):
            found = (np.arange(count)[:, None] * step + found[None]).reshape(-1)
        return base + found

    given = Pattern(*pattern, forms)
    made = [
        words(piece.offset, list(zip(piece.sizes, piece.strides))[:3], piece.sizes[3]) for piece in fit(given)
    ]
    assert np.array_equal(np.concatenate(made), words(given.base, list(given.loops), given.run))


def test_the_option_reaches_the_program() -> None:
    """options={"iterated": False} of torch.compile: the same outputs from a stream without iteration."""
    torch = pytest.importorskip("torch")
    from torch_xdna.devices import select
    from torch_xdna.settings import Settings

    assert Settings.from_options({"iterated": False}).iterated is False
    region = next(c.region for c in all_cases(quick=True) if "iterated" in forms_of(lower(c.region)))
    for iterated in (True, False):
        program = select("array", iterated=iterated).prepare(region).program  # type: ignore[attr-defined]
        assert iterated == ("iterated" in forms_of(program))
    torch.manual_seed(0)
    model, x = torch.nn.Linear(130, 200).eval(), torch.randn(1, 100, 130)
    outputs = []
    for iterated in (True, False):
        torch._dynamo.reset()
        options = {"device": "array", "iterated": iterated}
        with torch.no_grad():
            outputs.append(torch.compile(model, backend="xdna", options=options)(x))
    assert torch.equal(*outputs)
