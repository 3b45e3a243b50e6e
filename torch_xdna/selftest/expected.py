"""What a case should give: by the emulator where torch is installed, else by the numpy reference."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from torch_xdna.lowering.evaluate import evaluate
from torch_xdna.selftest.cases import Case


def expected(case: Case) -> tuple[str, list[np.ndarray]]:
    """(where the numbers come from, fp32 outputs)."""
    if importlib.util.find_spec("torch") is None:
        return "numpy reference", evaluate(case.region, case.params, case.inputs)
    import torch

    from torch_xdna.devices.emulator import EmulatorDevice

    executable = EmulatorDevice().prepare(case.region)
    packed = executable.pack({name: torch.from_numpy(p) for name, p in case.params.items()})
    outputs = executable.run([torch.from_numpy(x)[None] for x in case.inputs], packed)
    return "emulator", [y[0].float().numpy() for y in outputs]


def compare(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> dict[str, Any]:
    """How far outputs are from what they should be, over all outputs of a case."""
    a, b = (np.concatenate([x.reshape(-1) for x in xs]).astype(np.float64) for xs in (found, wanted))
    finite = bool(np.isfinite(a).all())
    difference = np.where(np.isfinite(a), a - b, np.inf)
    return {
        "finite": finite,
        "relative_l2": float(np.sqrt((difference**2).sum() / max((b**2).sum(), 1e-30))),
        "max_abs": float(np.abs(difference).max()),
        "equal_elements": float((difference == 0).mean()),
    }
