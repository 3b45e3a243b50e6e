"""Custom ops run eager and in their place, whatever they return."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, compiled
from torch import Tensor

import torch_xdna


@pytest.fixture(scope="module")
def ops():
    library = torch.library.Library("xdna_tests", "FRAGMENT")
    definitions = {
        "number_first": ("(Tensor x) -> (int, Tensor)", lambda x: (3, x * 2)),
        "list_first": ("(Tensor x) -> (Tensor[], Tensor)", lambda x: ([x + 1, x * 3], x * 2)),
        "list_of_tensors": ("(Tensor x) -> Tensor[]", lambda x: [x + 1, x * 3]),
        "number": ("(Tensor x) -> int", lambda x: x.shape[-1]),
        "none": ("(Tensor x) -> ()", lambda x: None),
        "missing_first": ("(Tensor x) -> (Tensor?, Tensor)", lambda x: (None, x * 2)),
    }
    for name, (schema, call) in definitions.items():
        library.define(name + schema)
        library.impl(name, call, "CompositeExplicitAutograd")
        torch.library.register_fake(f"xdna_tests::{name}", call, lib=library)
    yield torch.ops.xdna_tests
    library._destroy()


CALLS = {
    "number_first": lambda op, x: op(x)[1],
    "list_first": lambda op, x: op(x)[0][1] + op(x)[1],
    "list_of_tensors": lambda op, x: op(x)[1],
    "number": lambda op, x: x * op(x),
    "none": lambda op, x: (op(x), x)[1],
    "missing_first": lambda op, x: op(x)[1],
}


@pytest.mark.parametrize("name", CALLS)
@torch.no_grad()
def test_results_of_a_custom_op(ops, name: str) -> None:
    op, call = getattr(ops, name), CALLS[name]

    def fn(x: Tensor, w: Tensor) -> Tensor:
        return F.linear(call(op, F.gelu(F.linear(x, w))), w)

    x, w = torch.randn(2, 10, 64), torch.randn(64, 64) / 8
    assert_close(compiled(fn)(x, w), fn(x, w))
    reports = torch_xdna.reports()  # Dynamo breaks the graph at a number
    assert all(map(str, reports)) and any(report.regions for report in reports)
