"""Every layer benchmark starts from the same random numbers and from nothing compiled, without gradients."""

from __future__ import annotations

import warnings

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    warnings.filterwarnings("ignore", message="xdna: ")


@pytest.fixture(autouse=True)
def clean():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    with torch.no_grad():
        yield
    torch._dynamo.reset()
