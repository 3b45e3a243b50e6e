"""A refusal: why an op does not run on the device, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """`reason` completes "runs eager on the CPU, because ..." and ends with the remedy where there is one."""

    reason: str

    def __str__(self) -> str:
        return self.reason


SYMBOLIC = Refusal(
    "a size other than the batch and the number of rows is symbolic, the device needs it fixed: compile with "
    "dynamic=False"
)
