"""The header object: what makes the core program run one op. Words <-> names (`kernels_xdna1.contract`)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch_xdna.kernels_xdna1.contract import HEADER_FLOATS, HEADER_WORD, ROW_KINDS, Op

_FLOAT, _WORD = struct.Struct("<f"), struct.Struct("<I")
KIND_CODE = {kind.name: kind.code for kind in ROW_KINDS}


@dataclass(frozen=True)
class Header:
    """`op` is a `kernels_xdna1.contract.Op`; what the other words mean for it: `contract.HEADER`. Numbers are plain
    integers, but for `scale_hi`, `scale_lo`, `eps` and `inverse_width`, which are sent as fp32."""

    op: int
    outer: int
    inner: int = 0
    extra: int = 0
    per_output: int = 0
    kind: int = 0
    first_row: int = 0
    end_row: int = 0
    groups: int = 0
    valid: int = 0
    scale_hi: float = 0.0
    eps: float = 0.0
    scale_lo: float = 0.0
    width: int = 0
    inverse_width: float = 0.0

    def words(self) -> tuple[int, ...]:
        """As 32-bit words, without zeros at the end."""
        words = [0] * (1 + max(HEADER_WORD.values()))
        for field in fields(self):
            value, index = getattr(self, field.name), HEADER_WORD[field.name]
            bits = float_bits(value) if field.name in HEADER_FLOATS else int(value)
            assert not (bits and words[index]), f"header word {index} has two meanings at once"
            words[index] |= bits
        while words and not words[-1]:
            words.pop()
        return tuple(words)

    @classmethod
    def of(cls, words: Sequence[int]) -> Header:
        """The inverse of `words` for what a lowered program sends."""
        op = Op(words[0])
        found: dict[str, Any] = {}
        for field in fields(cls):
            index = HEADER_WORD[field.name]
            if index < len(words) and field.name not in _MEANINGLESS[op]:
                word = words[index]
                found[field.name] = as_float(word) if field.name in HEADER_FLOATS else int(word)
        return cls(**found)

    def __str__(self) -> str:
        """`op gemm, outer 48, inner 8`: what has a meaning and is not zero."""
        shown = [f"op {Op(self.op).name.lower()}"]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value or field.name in _ALWAYS[Op(self.op)]:
                shown.append(
                    f"{field.name} {value:.6g}" if field.name in HEADER_FLOATS else f"{field.name} {value}"
                )
        return ", ".join(shown)


def describe(words: Iterable[int]) -> str:
    """A header object's words by name."""
    return str(Header.of(tuple(words)))


def float_bits(value: float) -> int:
    """The bits of a number as fp32."""
    return int(_WORD.unpack(_FLOAT.pack(value))[0])


def as_float(word: int) -> float:
    """The fp32 number that has these bits."""
    return float(_FLOAT.unpack(_WORD.pack(word & 0xFFFFFFFF))[0])


# Word 10 means a scale to attention and eps to a row operation.
_MEANINGLESS = {
    Op.GEMM: ("scale_hi", "scale_lo", "eps"),
    Op.ATTENTION: ("eps",),
    Op.ROWS: ("scale_hi", "scale_lo"),
}
_ALWAYS = {
    Op.GEMM: ("outer", "inner", "extra", "first_row", "end_row", "groups"),
    Op.ATTENTION: ("outer", "inner", "extra", "valid"),
    Op.ROWS: ("outer", "inner", "extra", "per_output", "kind"),
}
