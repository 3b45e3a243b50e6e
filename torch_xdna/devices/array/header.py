"""What a header object may ask for: a word out of these bounds would make a kernel leave its operands.

A core has no such check. It would read and write whatever lies beside its buffers, so the simulator refuses. Words
that only make results wrong are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from lowering.limits import BLOCK, CORE_ROWS, NORM_WIDTH
from lowering.overlay.core_program import ATTENTION, GEMM, ROW_OP
from lowering.overlay.variants import FULL, Variant
from torch_xdna.devices.array.errors import HardwareFault

LAYER_NORM, SOFTMAX, GELU, ADD = range(4)  # h[5]
ROW_KINDS = {LAYER_NORM: "layer_norm", SOFTMAX: "softmax", GELU: "gelu", ADD: "add"}
PIECES = CORE_ROWS  # of a C object of a row op


def check_header(header: Sequence[int], tile: object, variant: Variant = FULL) -> None:
    """Refuse what the kernels of the header's op can't take; `header` are words 0..31, `tile` names the core, `variant`
    says which row operations its kernels hold: they take every other kind for layer_norm."""
    op = header[0]
    if op == GEMM:
        _within(tile, "gemm", header, 8, "row groups", 1, 1 << 16)
    elif op == ATTENTION:
        _within(tile, "attention", header, 9, "valid keys", 1, BLOCK * header[2])
    elif op == ROW_OP:
        _within(tile, "row op", header, 5, "kind", LAYER_NORM, ADD)
        name = ROW_KINDS[header[5]]
        if name in variant.without:
            raise HardwareFault(
                "header", f"{tile} got a header for {name}, which overlay '{variant.name}' lacks"
            )
        per_output = 2 * PIECES if header[5] == ADD else PIECES
        _within(tile, name, header, 4, "inputs per output", 0, per_output)
        if header[5] == LAYER_NORM:
            _within(tile, name, header, 3, "outputs per trip", 0, NORM_WIDTH.maximum // (BLOCK * PIECES))
            _within(tile, name, header, 12, "columns", 1, NORM_WIDTH.maximum)


def _within(tile: object, op: str, header: Sequence[int], word: int, what: str, low: int, high: int) -> None:
    if not low <= header[word] <= high:
        raise HardwareFault(
            "header",
            f"{tile} got a header for {op} whose word {word} ({what}) is {header[word]}, outside {low} to {high}",
        )
