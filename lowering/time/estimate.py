"""What an estimate is: seconds, how they come about, for which inputs. Modelled, never measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

DISPATCH_S: dict[str, float] = {
    "none": 0.0,
    "single": 140e-6,  # pyxrt, one run at a time (D2)
    "cpp": 108e-6,  # C++ XRT (note of D2)
    "jit": 617e-6,  # IRON's Python wrapper (D1)
    "stream": 250e-6,  # one large instruction stream (D5)
}
RUNLIST_FIXED_S, RUNLIST_RUN_S = 112.5e-6, 34.5e-6  # solves 147 us for one run and 36.3 us for one of 64 (D3)


@dataclass(frozen=True)
class Estimate:
    """A modelled time. `breakdown`: seconds by cause; parts that overlap are bounds and do not add up.

    `bound` names the cause that decides; `inputs` repeats what was asked, so that a result explains itself.
    """

    seconds: float
    breakdown: Mapping[str, float]
    bound: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    work: float = 0.0  # operations (2 per MAC), for a rate

    @property
    def gops(self) -> float:
        """1e9 operations per second."""
        return self.work / self.seconds * 1e-9 if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        rate = {"gops": self.gops} if self.work else {}
        return {
            "modelled": True,
            "seconds": self.seconds,
            **rate,
            "bound": self.bound,
            "inputs": dict(self.inputs),
            "breakdown": dict(self.breakdown),
        }


def dispatch_seconds(kind: str | float) -> float:
    """Host and driver time per run: a name in `DISPATCH_S`, `runlist` (64 runs), `runlist:N`, or seconds."""
    if not isinstance(kind, str):
        if not (isfinite(kind) and kind >= 0):
            raise ValueError(f"dispatch {kind}: seconds must be at least 0")
        return float(kind)
    if kind in DISPATCH_S:
        return DISPATCH_S[kind]
    try:
        return dispatch_seconds(float(kind))
    except ValueError:
        name, _, count = kind.partition(":")
    if name == "runlist" and (not count or (count.isdigit() and int(count) > 0)):
        return RUNLIST_RUN_S + RUNLIST_FIXED_S / (int(count) if count else 64)
    raise ValueError(
        f"dispatch {kind!r} is not known; use one of {', '.join(DISPATCH_S)}, runlist, runlist:N or seconds"
    )
