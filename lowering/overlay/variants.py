"""Overlays that can do less: what to build where the whole one does not fit into a core's program memory.

A variant leaves kernels out of the core and cases out of its program; FIFOs, buffers and routes stay, so streams that
ask for what is there are the same words. Ops are named by what a header may ask for, and by the steps of a program
(`lowering.program.StepFacts.kind`). Steps that only move or zero blocks are products.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch_xdna.kernels_xdna1.contract import Op
from torch_xdna.kernels_xdna1.description import KERNELS as DESCRIBED
from torch_xdna.lowering.errors import LackingError
from torch_xdna.lowering.overlay.core_program import CORE_PROGRAM, Call, Loop, Switch, walk

ATTENTION_OP, NORM_OP = "attention", "layer_norm"
ROW_OPS = ("softmax", "gelu", "add")  # each of them alone; products and attention have their own
_PRODUCTS = ("gemm", "reorder", "gather", "zeros")


@dataclass(frozen=True)
class Variant:
    """`without`: ops that the cores can't do. `defines`: macros that leave their code out of the kernels' sources."""

    name: str
    without: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()

    @property
    def ops(self) -> tuple[str, ...]:
        """What it can do."""
        return tuple(op for op in (*_PRODUCTS, NORM_OP, ATTENTION_OP, *ROW_OPS) if op not in self.without)

    @property
    def program(self) -> Loop:
        """The core program, without the cases that it lacks."""
        if ATTENTION_OP not in self.without:
            return CORE_PROGRAM
        body = tuple(
            replace(part, cases=tuple(case for case in part.cases if case.value != Op.ATTENTION))
            if isinstance(part, Switch)
            else part
            for part in CORE_PROGRAM.body
        )
        return replace(CORE_PROGRAM, body=body)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels that its program calls, in the order of the description."""
        called = {part.kernel for part in walk(self.program) if isinstance(part, Call)}
        return tuple(kernel.name for kernel in DESCRIBED if kernel.name in called)

    def lacking(self, kinds: Iterable[str]) -> tuple[str, ...]:
        """Which of these ops it can't do, each once."""
        return tuple(kind for kind in dict.fromkeys(kinds) if kind in self.without)

    def check(self, kinds: Iterable[str]) -> None:
        """Raise LackingError for the first of these ops that it can't do."""
        for op in self.lacking(kinds):
            raise LackingError(self.refusal(op))

    def refusal(self, op: str) -> str:
        """Why an op does not run; completes "runs eager on the CPU, because ..."."""
        return (
            f"the overlay in use was built without {op} (variant '{self.name}', to fit program memory): build a larger "
            "one with `torch-xdna build-overlay`, or leave it to the CPU"
        )


FULL = Variant("full")
LEAN = Variant("no-row-ops", ROW_OPS, ("ONLY_LAYER_NORM",))
PRODUCTS = Variant("products", (*ROW_OPS, ATTENTION_OP), ("ONLY_LAYER_NORM",))
VARIANTS = (FULL, LEAN, PRODUCTS)  # from the one that can do most
BY_NAME = {variant.name: variant for variant in VARIANTS}
