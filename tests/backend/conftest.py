"""Fixtures of the backend's tests: a clean Dynamo for each test, no warnings of fallbacks."""

from __future__ import annotations

import warnings

import pytest
import torch


@pytest.fixture(autouse=True)
def clean_dynamo():
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture(autouse=True)
def quiet():
    """Warnings of fallbacks are tested where they matter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="xdna: ")
        yield
