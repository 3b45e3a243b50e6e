"""Compares the host build's arithmetic with values captured on hardware.

Two file formats (tests/kernels/data has one of each):
- {"<rounding code>": {"input_f32_bits": [...], "output_bf16_bits": [...]}}: fp32 to bf16 in the core's ten modes;
- [{"a_bf16_bits": [32], "b_bf16_bits": [32], "c_f32_bits": [16]}]: 4x8 by 8x4 products. NaN payloads are not defined:
  where the capture has a NaN, any NaN agrees; the count of defined values leaves those out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torch_xdna.kernels_xdna1.host import Kernels, load


@dataclass(frozen=True)
class Match:
    """`matching` of `values` captured values agree bit by bit; `first` shows a mismatch."""

    file: str
    what: str
    values: int
    matching: int
    first: str = ""

    def __str__(self) -> str:
        share = 100 * self.matching / self.values if self.values else 100
        wrong = f"; first difference: {self.first}" if self.first else ""
        return f"{self.file}: {self.what}: {self.matching} of {self.values} match ({share:.2f} %){wrong}"


def check(folder: Path) -> list[Match]:
    """Every JSON file of the two formats in `folder`, one result per rounding mode or product part.

    Raises ValueError if the folder holds no such file.
    """
    kernels = load()
    found: list[Match] = []
    for file in sorted(folder.glob("*.json")):
        try:
            data = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{file} is not JSON: {error}") from error
        if is_rounding(data):
            found += [_rounding(kernels, file.name, mode, case) for mode, case in data.items()]
        elif is_products(data):
            found += _products(kernels, file.name, data)
    if not found:
        raise ValueError(f"{folder} holds no capture of fp32 to bf16 conversions or 4x8x4 products (*.json)")
    return found


def is_rounding(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and bool(data)
        and all(isinstance(case, dict) and "output_bf16_bits" in case for case in data.values())
    )


def is_products(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(case, dict) and "c_f32_bits" in case for case in data)
    )


def _rounding(kernels: Kernels, file: str, mode: str, case: dict[str, list[int]]) -> Match:
    inputs = np.array(case["input_f32_bits"], np.uint32)
    expected = np.array(case["output_bf16_bits"], np.uint16)
    got = round_to_bf16(kernels, inputs, int(mode))
    wrong = np.flatnonzero(got != expected)
    first = ""
    if len(wrong):
        i = wrong[0]
        first = f"{inputs[i]:#010x} gives {got[i]:#06x}, captured {expected[i]:#06x}"
    return Match(file, f"rounding mode {mode}", len(inputs), len(inputs) - len(wrong), first)


def _products(kernels: Kernels, file: str, cases: list[dict[str, list[int]]]) -> list[Match]:
    totals = {"finite values": [0, 0], "infinities": [0, 0], "NaN": [0, 0]}
    first = dict.fromkeys(totals, "")
    for number, case in enumerate(cases):
        a, b = (np.array(case[key], np.uint16) for key in ("a_bf16_bits", "b_bf16_bits"))
        expected = np.array(case["c_f32_bits"], np.uint32)
        got = matrix_unit(kernels, a, b, exact=True).view(np.uint32)
        for i, (mine, theirs) in enumerate(zip(got.tolist(), expected.tolist())):
            what = part(theirs)
            same = mine == theirs if what != "NaN" else part(mine) == "NaN"
            totals[what][0] += 1
            totals[what][1] += same
            if not same and not first[what]:
                first[what] = f"product {number}, value {i}: {mine:#010x}, captured {theirs:#010x}"
    return [Match(file, f"4x8x4 products, {w}", n, ok, first[w]) for w, (n, ok) in totals.items() if n]


def part(bits: int) -> str:
    magnitude = bits & 0x7FFFFFFF
    if magnitude < 0x7F800000:
        return "finite values"
    return "infinities" if magnitude == 0x7F800000 else "NaN"


def round_to_bf16(kernels: Kernels, inputs: np.ndarray, mode: int) -> np.ndarray:
    """bf16 bits of fp32 bits (uint32, contiguous) in one of the core's rounding modes."""
    out = np.empty(len(inputs), np.uint16)
    kernels.library.host_round(inputs.ctypes.data, out.ctypes.data, len(inputs), mode)
    return out


def matrix_unit(kernels: Kernels, a: np.ndarray, b: np.ndarray, *, exact: bool) -> np.ndarray:
    """float32 (16,) = a (4x8) @ b (8x4), bf16 bits: as the core's adder does it, or as the CPU's fast path does."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    c = np.empty(16, np.float32)
    kernels.library.host_matrix_unit(a.ctypes.data, b.ctypes.data, c.ctypes.data, int(exact))
    return c
