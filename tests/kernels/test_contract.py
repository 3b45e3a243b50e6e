"""The contract in Python and in C++ is one: kernels/common.hpp, read as text, says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from torch_xdna.kernels_xdna1 import contract
from torch_xdna.kernels_xdna1.contract import HEADER_WORD, ROW_KINDS, BlockOrder, Op
from torch_xdna.lowering.overlay.header import Header, describe

COMMON = (Path(contract.__file__).parent / "kernels" / "common.hpp").read_text()


def enumerators(text: str) -> list[dict[str, int]]:
    """Every plain enum of a text: name -> value."""
    found = []
    for body in re.findall(r"\benum\s*(?:\w+\s*)?\{([^}]*)\}", text):
        values: dict[str, int] = {}
        known = {name: value for one in found for name, value in one.items()}
        following = 0
        for entry in filter(None, (e.strip() for e in body.split(","))):
            name, _, given = (part.strip() for part in entry.partition("="))
            if given:
                following = int(given) if given.isdigit() else {**known, **values}[given]
            values[name] = following
            following += 1
        found.append(values)
    return found


@pytest.fixture(scope="module")
def words() -> dict[str, int]:
    body = re.search(r"namespace word \{(.*?)\}  // namespace word", COMMON, re.DOTALL)
    assert body
    return {name: value for one in enumerators(body[1]) for name, value in one.items()}


def test_header_words(words: dict[str, int]) -> None:
    sent = {name: index for name, index in words.items() if index < 32}
    assert sent == HEADER_WORD
    assert words["count"] == 32
    assert all(words[name] in contract.HEADER for name in words)


def test_orders_and_kinds() -> None:
    every = [e for e in enumerators(COMMON)]
    assert {"order_a": BlockOrder.A, "order_k": BlockOrder.KEYS, "order_v": BlockOrder.VALUES} in every
    assert {f"kind_{kind.name}": kind.code for kind in ROW_KINDS} in every
    params = next(e for e in every if "params_gelu" in e)
    assert params["params_gelu"] == contract.PANEL_GELU


@pytest.mark.parametrize(
    "header",
    [
        Header(Op.GEMM, 48, 8, extra=4, first_row=1, end_row=1500, groups=6),
        Header(Op.GEMM, 1, end_row=2**31 - 1),
        Header(Op.ATTENTION, 9, 24, 2, valid=1500, scale_hi=0.1796875, scale_lo=0.00062561035),
        Header(Op.ROWS, 6, 8, 2, 4, 0, eps=1e-5, width=512, inverse_width=1 / 512),
        Header(Op.ROWS, 6, 24, 6, 4, 1, valid=1500),
        Header(Op.ROWS, 6, 0, 2, 8, 3),
    ],
)
def test_words_and_back(header: Header) -> None:
    back = Header.of(header.words())
    assert back.words() == header.words()
    assert describe(header.words()).startswith(f"op {Op(header.op).name.lower()}, outer {header.outer}")
    assert back.op == header.op and back.outer == header.outer and back.valid == header.valid


def test_a_word_has_one_meaning_at_a_time() -> None:
    with pytest.raises(AssertionError, match="two meanings"):
        Header(Op.ROWS, 1, eps=1e-5, scale_hi=0.5).words()
