"""Comparison of a compiled function with eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import torch_xdna


def compiled(fn: Callable, **options: Any) -> Callable:
    return torch.compile(fn, backend="xdna", options={"device": "emulator", **options})


def assert_like_eager(
    fn: Callable, *args: Any, regions: int | None = None, eager_ops: int | None = None
) -> Any:
    """Values as close as bf16 allows; shape, dtype and strides exactly; and what ran where. Returns the report."""
    with torch.no_grad():
        expected = fn(*args)
        actual = compiled(fn)(*args)
    assert_close(actual, expected)
    report = only_report()
    if regions is not None:
        assert report.regions == regions, str(report)
    if eager_ops is not None:
        assert report.eager_ops == eager_ops, str(report)
    return report


def assert_close(actual: Any, expected: Any) -> None:
    if isinstance(expected, (tuple, list)):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected):
            assert_close(a, e)
        return
    assert (actual.dtype, actual.shape, actual.stride()) == (
        expected.dtype,
        expected.shape,
        expected.stride(),
    )
    assert torch.isfinite(actual).all()
    # Two percent of the largest value: bf16's 2^-9 after a few ops; an element in a wrong place is off by far more.
    scale = expected.double().abs().max().clamp_min(1e-3)
    assert ((actual.double() - expected.double()).abs().max() / scale).item() < 0.02


def only_report() -> torch_xdna.Report:
    (report,) = torch_xdna.reports()
    return report
