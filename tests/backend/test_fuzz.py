"""A seeded sample of the graph fuzzer (fuzz.py runs as many as you like), and that it would notice."""

from __future__ import annotations

import pytest
import torch
from fuzz import fault
from fuzz_programs import Program, programs

import torch_xdna

SAMPLE = list(programs(0, range(24)))


@pytest.mark.parametrize("case", [case for case, _ in SAMPLE])
def test_a_random_program(case: int) -> None:
    program = dict(SAMPLE)[case]
    assert fault(program) is None, program.source


def test_the_same_seed_writes_the_same_programs() -> None:
    again = dict(programs(0, range(24)))
    assert {case: p.source for case, p in again.items()} == {case: p.source for case, p in SAMPLE}
    for case, program in SAMPLE:
        assert all(torch.equal(t, again[case].tensors[name]) for name, t in program.tensors.items())


def test_they_reach_the_device_in_every_way() -> None:
    """Half of the programs have a region; everything that the device has occurs among eighty."""
    sources = [program.source for _, program in programs(0, range(80))]
    assert len(sources) > 70
    words = (
        "scaled_dot_product",
        "softmax",
        "layer_norm",
        "gelu",
        "conv1d",
        "linear",
        "bmm",
        "einsum",
        "addmm",
        ".mT",
        "_(",
    )
    assert all(sum(word in source for source in sources) >= 2 for word in words)
    regions = 0
    for _, program in SAMPLE[:6]:
        torch._dynamo.reset()
        run, arguments = program.build(program.dtype)
        regions += torch_xdna.explain(run, *arguments).regions > 0
    assert regions >= 3


def test_a_wrong_number_is_noticed(monkeypatch) -> None:
    """One number of a result, off by half of the largest."""
    from torch_xdna.devices.emulator import EmulatorExecutable

    run = EmulatorExecutable.run

    def off(self, inputs, packed):
        results = run(self, inputs, packed)
        results[0].view(-1)[7] += results[0].abs().max() / 2
        return results

    program = Program(torch.float32, False)
    program.tensors = {"a0": torch.randn(4, 8, 8), "w1": torch.randn(8, 8)}
    program.lines, program.outputs = ["v0 = F.linear(a0, w1)"], ["v0"]
    assert fault(program) is None
    monkeypatch.setattr(EmulatorExecutable, "run", off)
    assert "is off by" in str(fault(program))
    monkeypatch.setattr(EmulatorExecutable, "run", lambda *a: [r.mul_(float("nan")) for r in run(*a)])
    assert "not finite" in str(fault(program))
