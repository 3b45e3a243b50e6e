"""`explain` and `capture_regions` tell of a call as the first of its kind, whatever was compiled or explained before,
and change nothing for what comes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from comparing import compiled
from torch import Tensor, nn

import torch_xdna
from torch_xdna.switches import switched_off


def _layer(k: int, n: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(k), nn.Linear(k, n)).eval()


def test_modules_of_one_class_with_other_sizes() -> None:
    """(The second was "0 regions, 1 eager op": Dynamo had made its sizes symbolic.)"""
    for k, n, rows in [(64, 64, 5), (128, 64, 7), (192, 256, 9)]:
        (region,) = torch_xdna.capture_regions(_layer(k, n), torch.randn(1, rows, k))
        assert (region.value(region.inputs[0]).cols, region.value(region.inputs[0]).rows) == (k, rows)
        report = torch_xdna.explain(_layer(k, n), torch.randn(1, rows + 1, k))
        assert report.eager_ops == 0 and report.compiles == 1
        assert report.rows[0].shape == (1, rows + 1, k)


def test_more_of_them_than_dynamo_compiles_of_one_function() -> None:
    for i in range(1, 12):
        assert torch_xdna.explain(nn.Linear(16 * i, 16), torch.randn(3, 16 * i)).regions == 1


def test_a_function_with_a_graph_break_in_it() -> None:
    def fn(x: Tensor, w: Tensor) -> Tensor:
        y = x @ w
        torch._dynamo.graph_break()
        return torch.nn.functional.gelu(y @ w.T)

    for rows, width in [(4, 32), (6, 64), (9, 128)]:
        report = torch_xdna.explain(fn, torch.randn(rows, width), torch.randn(width, width))
        assert (report.regions, report.eager_ops) == (2, 0), str(report)


def test_after_compiling_and_before_it() -> None:
    module, run = _layer(64, 64), None
    with torch.no_grad():
        assert torch_xdna.explain(module, torch.randn(1, 9, 64)).eager_ops == 0
        run = compiled(module)
        run(torch.randn(1, 5, 64))
        (first,) = torch_xdna.reports()
        assert first.rows[0].shape == (1, 5, 64)  # explaining 9 rows did not make them symbolic
        run(torch.randn(1, 6, 64))
        assert torch_xdna.explain(module, torch.randn(1, 7, 64)).rows[0].shape == (1, 7, 64)


def test_one_call_that_meets_several_sizes_is_told_as_it_would_run() -> None:
    inner = nn.Linear(64, 64).eval()

    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        torch._dynamo.graph_break()
        return inner(x), inner(y)

    report = torch_xdna.explain(fn, torch.randn(5, 64), torch.randn(9, 64))
    assert report.device_ops >= 1 and report.eager_ops == 0


@pytest.fixture(params=["TORCHDYNAMO_DISABLE", "torch._dynamo.config.disable", "force_eager"])
def off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    if request.param == "TORCHDYNAMO_DISABLE":
        monkeypatch.setenv(request.param, "1")
        yield request.param
    elif request.param == "force_eager":
        with torch.compiler.set_stance("force_eager"):
            yield request.param
    else:
        with torch._dynamo.config.patch(disable=True):
            yield request.param


def test_torch_compile_switched_off_is_said(off: str) -> None:
    """(It was "nothing: 0 regions, 0 eager ops".)"""
    module = nn.Linear(64, 64)
    report = torch_xdna.explain(module, torch.randn(3, 64))
    assert off in report.summary() and off in str(report) and off in report.to_dict()["summary"]
    assert "runs eager" in report.summary() and report.regions == 0
    with pytest.warns(UserWarning, match="switches torch.compile off"):
        assert torch_xdna.capture_regions(module, torch.randn(3, 64)) == []


def test_switched_on() -> None:
    assert switched_off() is None


@pytest.mark.parametrize("value", ["0", ""])
def test_variables_that_switch_nothing_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", value)
    assert switched_off() is None


def test_the_variable_that_torch_reads_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    assert switched_off() is None  # too late to have an effect
    code = "import torch, torch_xdna; print(torch_xdna.explain(torch.nn.Linear(8, 8), torch.ones(2, 8)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "TORCH_COMPILE_DISABLE=1 in the environment switches torch.compile off" in done.stdout
