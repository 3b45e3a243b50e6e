"""Measured cycles of other people's matrix product kernels, beside the bound that counting gives.

Rows L1-L9 of the project's calibration data: one core of an 8700G at 1.80 GHz, operands in core memory, cycles per
call with the empty call's 19-25 included (jdominick05/ignite-xdna; L1 with scalable-analyses/xdna).
"""

from __future__ import annotations

from dataclasses import dataclass

MACS_PER_CYCLE = {"bf16": 128, "int8": 256}
LANES = 16
"""Accumulator lanes of 32 bits in a register; two 256-bit accesses each, through load unit a and the store unit."""


@dataclass(frozen=True)
class Product:
    """A measured call: `m` x `k` times `k` x `n`, sums read from and written to core memory."""

    row: str
    kernel: str
    m: int
    k: int
    n: int
    type: str
    cycles: float

    @property
    def bound(self) -> float:
        """Cycles of the busiest slot: the multiplier, or the sums' way in or out for short k."""
        return max(self.m * self.k * self.n / MACS_PER_CYCLE[self.type], 2 * self.m * self.n / LANES)

    @property
    def factor(self) -> float:
        return self.cycles / self.bound


PRODUCTS = (
    Product("L1", "hand-scheduled", 32, 32, 32, "bf16", 301.3),
    Product("L2", "mlir-aie mm.cc", 32, 32, 32, "bf16", 898.6),
    Product("L3", "mlir-aie mm.cc", 32, 64, 32, "bf16", 1418.5),
    Product("L4", "mlir-aie mm.cc", 32, 128, 32, "bf16", 2482.4),
    Product("L5", "mlir-aie mm.cc", 64, 64, 64, "bf16", 5427.4),
    Product("L6", "mlir-aie mm.cc", 32, 32, 32, "int8", 533.4),
    Product("L7", "mlir-aie mm.cc", 32, 64, 32, "int8", 697.1),
    Product("L8", "mlir-aie mm.cc", 32, 128, 32, "int8", 1009.4),
    Product("L9", "mlir-aie mm.cc", 64, 64, 64, "int8", 2604.8),
)

STOCK_64 = PRODUCTS[4]
