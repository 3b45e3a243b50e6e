"""What a header object may ask for: a word out of these bounds would make a kernel leave its operands.

A core has no such check. It would read and write whatever lies beside its buffers, so the simulator refuses. Words
that only make results wrong are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_xdna.devices.array.errors import HardwareFault
from torch_xdna.kernels_xdna1.contract import HEADER_WORD, PIECES, ROW_KINDS, Op
from torch_xdna.lowering.limits import BLOCK, NORM_WIDTH
from torch_xdna.lowering.overlay.variants import FULL, Variant

_WORD = HEADER_WORD


def check_header(header: Sequence[int], tile: object, variant: Variant = FULL) -> None:
    """Refuse what the kernels of the header's op can't take; `header` are words 0..31, `tile` names the core, `variant`
    says which row operations its kernels hold: they take every other kind for layer_norm."""
    op = header[_WORD["op"]]
    if op == Op.GEMM:
        _within(tile, "gemm", header, "groups", "row groups", 1, 1 << 16)
    elif op == Op.ATTENTION:
        _within(tile, "attention", header, "valid", "valid keys", 1, BLOCK * header[_WORD["inner"]])
    elif op == Op.ROWS:
        _within(tile, "row op", header, "kind", "kind", 0, len(ROW_KINDS) - 1)
        kind = ROW_KINDS[header[_WORD["kind"]]]
        if kind.name in variant.without:
            raise HardwareFault(
                "header", f"{tile} got a header for {kind.name}, which overlay '{variant.name}' lacks"
            )
        _within(tile, kind.name, header, "per_output", "inputs per output", 0, kind.operands * PIECES)
        if kind.name == "layer_norm":
            most = NORM_WIDTH.maximum
            _within(tile, kind.name, header, "extra", "outputs per trip", 0, most // (BLOCK * PIECES))
            _within(tile, kind.name, header, "width", "columns", 1, most)


def _within(tile: object, op: str, header: Sequence[int], name: str, what: str, low: int, high: int) -> None:
    word = _WORD[name]
    if not low <= header[word] <= high:
        raise HardwareFault(
            "header",
            f"{tile} got a header for {op} whose word {word} ({what}) is {header[word]}, outside {low} to {high}",
        )
