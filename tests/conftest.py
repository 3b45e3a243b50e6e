"""The order of tests must not matter: each starts from the same random numbers and leaves the process as it was.

pytest-randomly shuffles files and the tests in them. The head of a run prints its seed (`Using --randomly-seed=N`);
`pytest --randomly-seed=N` repeats that order, `pytest -p no:randomly` keeps the files' own.
"""

from __future__ import annotations

import locale
import logging
import os
import random
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

# pytest's own, and what torch notes for its child processes when Inductor is first imported.
IGNORED = {"PYTEST_CURRENT_TEST", "PYTEST_VERSION", "TORCHINDUCTOR_CACHE_DIR"}


def process_state() -> dict[str, Any]:
    """What every test of this process sees, by name."""
    return {
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_default_device()": torch.get_default_device(),
        "torch.get_num_threads()": torch.get_num_threads(),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.is_inference_mode_enabled()": torch.is_inference_mode_enabled(),
        "torch.is_autocast_enabled('cpu')": torch.is_autocast_enabled("cpu"),
        "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled(),
        "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
        "numpy.geterr()": np.geterr(),
        "os.getcwd()": os.getcwd(),
        "the signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "the locale": locale.setlocale(locale.LC_ALL),
        "logging's level": logging.root.level,
        "the standard streams": (sys.__stdin__, sys.__stdout__, sys.__stderr__),
        **{f"os.environ[{k!r}]": v for k, v in os.environ.items() if k not in IGNORED},
    }


@pytest.fixture(autouse=True)
def the_process_stays_as_it_was() -> Iterator[None]:
    """Fails the test that leaves something behind, instead of whichever comes after it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    before = process_state()
    yield
    after = process_state()
    changed = {
        name: (before.get(name, "unset"), after.get(name, "unset"))
        for name in before.keys() | after.keys()
        if before.get(name, "unset") != after.get(name, "unset")
    }
    assert not changed, f"this test left the process changed (before, after): {changed}"
