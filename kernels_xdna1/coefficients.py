"""Generates kernels/coefficients.hpp: the polynomials of the exponential and of GELU, with their errors.

The core multiplies bf16 by bf16 and adds fp32, so in a Horner scheme only the highest coefficient is a
multiplicand and must be a bf16 number; all others are added, in fp32. Each fit is minimax (Lawson's
reweighted least squares); the highest coefficient is rounded to bf16 and the rest is fitted again around
it.

    python -m torch_xdna.kernels_xdna1.coefficients > kernels_xdna1/kernels/coefficients.hpp
"""

from __future__ import annotations

from functools import cache
from math import erfc, log, sqrt

import numpy as np

GELU_EDGES = (1.0, 2.25, 4.25)
"""Ends of the pieces in |x|; beyond the last, |x| counts as the last, where the polynomial is zero."""
GELU_CENTRES = (0.0, 1.625, 3.25)
GELU_TOP = 0.00015
"""The highest coefficient, one for all pieces (products can't choose a multiplicand): what leaves least error."""


def bf16(x: float) -> float:
    """The nearest bf16 number, ties to even."""
    bits = int(np.float32(x).view(np.uint32))
    return float(np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32))


def minimax(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients of the columns of `basis` that minimise the largest absolute error."""
    weights = np.ones(len(values))
    best, least = np.zeros(basis.shape[1]), np.inf
    for _ in range(400):
        root = np.sqrt(weights)[:, None]
        found = np.linalg.lstsq(basis * root, values * root[:, 0], rcond=None)[0]
        error = np.abs(basis @ found - values)
        if error.max() < least:
            best, least = found, error.max()
        weights = weights * error
        weights /= weights.sum()
    return best


def fit(
    points: np.ndarray, values: np.ndarray, powers: list[int], weights: np.ndarray | float = 1.0
) -> np.ndarray:
    """Minimax coefficients of `powers` with the highest one a bf16 number; errors count `weights` times."""
    basis = np.stack([points**p for p in powers], axis=1) * np.reshape(weights, (-1, 1))
    values = values * weights
    top = bf16(minimax(basis, values)[-1])
    rest = minimax(basis[:, :-1], values - top * basis[:, -1])
    return np.append(rest, top)


def nodes() -> np.ndarray:
    """Points of [0, 1], denser towards the ends."""
    return (1 - np.cos(np.linspace(0, np.pi, 601))) / 2


@cache
def exp2_coefficients() -> np.ndarray:
    """s with 2^(f + 1/2) = s0 + f (s1 + f (s2 + f (s3 + f s4))) for |f| <= 1/2."""
    f = nodes() - 0.5
    return fit(f, 2.0 ** (f + 0.5), [0, 1, 2, 3, 4])


PROBABILITY_S0 = 1 + 53 / 128
"""The cubic's constant: seven fraction bits, so that what it is added to is exact."""


@cache
def probability_coefficients() -> np.ndarray:
    """s with 2^(f + 1/2) = s0 + f + f (s1 + f (s2 + f s3)) for |f| <= 1/2: attention's, whose results have 8 bits."""
    f = nodes() - 0.5
    return np.append(PROBABILITY_S0, fit(f, 2.0 ** (f + 0.5) - PROBABILITY_S0 - f, [1, 2, 3]))


def gelu_tail(a: np.ndarray) -> np.ndarray:
    """gelu(x) - max(x, 0) as a function of a = |x|."""
    return np.array([-t * erfc(t / sqrt(2)) / 2 for t in a])


@cache
def gelu_coefficients() -> list[np.ndarray]:
    """Per piece (base, s0 .. s4): gelu(x) - max(x, 0) = base + v (s0 + v (... + v s4)), v = |x| - centre.

    The first piece starts at 0 with base 0, and its errors are relative, so that small inputs give half of themselves.
    The last ends in zero, so that very negative inputs give zero; where its values are above 1/64, a bf16 ulp of the
    result leaves less room and errors weigh more. s4 is the same in all.
    """
    pieces = []
    top = bf16(GELU_TOP)
    for first, last, centre in zip((0.0, *GELU_EDGES), GELU_EDGES, GELU_CENTRES):
        a = first + nodes() * (last - first)
        v, tail = a - centre, gelu_tail(a)
        if centre == 0:
            weights = 1 / np.maximum(-tail, 6e-3)
            pieces.append(np.append(0.0, fit_below(v, tail, [1, 2, 3, 4], top, weights)))
        elif last < GELU_EDGES[-1]:
            pieces.append(fit_below(v, tail, [0, 1, 2, 3, 4], top))
        else:
            pieces.append(fit_to_zero(v, tail, np.where(tail <= -1 / 64, 5.0, 1.0), top))
    return pieces


def fit_below(
    points: np.ndarray, values: np.ndarray, powers: list[int], top: float, weights: np.ndarray | float = 1.0
) -> np.ndarray:
    """Minimax coefficients of `powers` beside a given coefficient of the fifth."""
    basis = np.stack([points**p for p in powers], axis=1) * np.reshape(weights, (-1, 1))
    return np.append(minimax(basis, (values - top * points**5) * weights), top)


def fit_to_zero(points: np.ndarray, values: np.ndarray, weights: np.ndarray, top: float) -> np.ndarray:
    """As `fit_below` with the powers 0..4, but the polynomial is zero at 1, as the core computes it there."""
    basis = np.stack([points**p - 1 for p in (1, 2, 3, 4)], axis=1) * weights[:, None]
    s = np.append(minimax(basis, (values - top * (points**5 - 1)) * weights), top)
    at_one = s[0] + s[1] + bf16(s[2] + bf16(s[3] + s[4]))  # the inner steps are rounded to bf16
    return np.append(-at_one, s)


def gelu_steps() -> dict[str, tuple[float, list[float], list[float]]]:
    """What the kernel adds: per coefficient the first piece's, and what the second and the third add to the one before,
    as sums of two bf16 numbers (of one where that is exact, or enough: `centre`, s2, s3)."""
    columns = [list(GELU_CENTRES), *np.array(gelu_coefficients())[:, :5].T.tolist()]
    found = {}
    for name, column in zip(("centre", "base", "s0", "s1", "s2", "s3"), columns):
        held = first = float(np.float32(column[0]))
        high, low = [], []
        for value in column[1:]:
            high.append(bf16(value - held))
            held += high[-1]
            low.append(bf16(value - held) if name in ("base", "s0", "s1") else 0.0)
            held += low[-1]
        found[name] = first, high, low
    return found


def polynomial(s: np.ndarray, v: np.ndarray) -> np.ndarray:
    """s[0] + s[1] v + ..."""
    return sum(c * v**i for i, c in enumerate(s))


def errors() -> dict[str, float]:
    """Largest absolute error of each polynomial in exact arithmetic (roundings of the core come on top)."""
    f = np.linspace(-0.5, 0.5, 4001)
    found = {"exp2": float(np.abs(polynomial(exp2_coefficients(), f) - 2.0 ** (f + 0.5)).max())}
    cubic = polynomial(probability_coefficients(), f) + f
    found["probability"] = float(np.abs(cubic - 2.0 ** (f + 0.5)).max())
    edges = (0.0, *GELU_EDGES)
    steps = gelu_steps()
    for i in range(3):
        chosen = {n: c + sum(h[:i]) + sum(low[:i]) for n, (c, h, low) in steps.items()}
        a = np.linspace(edges[i], edges[i + 1], 4001)
        s = np.array([*(chosen[n] for n in ("base", "s0", "s1", "s2", "s3")), bf16(GELU_TOP)])
        error = np.abs(polynomial(s, a - chosen["centre"]) - gelu_tail(a)).max()
        found[f"gelu [{edges[i]:g}, {edges[i + 1]:g})"] = float(error)
    return found


def header() -> str:
    """The text of coefficients.hpp."""
    lines = [
        "// Generated by kernels_xdna1/coefficients.py: edit that. Largest absolute errors in exact arithmetic:",
        *(f"//   {name}: {error:.1e}" for name, error in errors().items()),
        "#pragma once",
        "",
    ]

    def constant(name: str, value: float) -> str:
        return f"constexpr float {name} = {np.float32(value)!s}f;"

    lines += [constant(f"exp2_s{i}", s) for i, s in enumerate(exp2_coefficients())]
    lines += [constant(f"probability_s{i}", s) for i, s in enumerate(probability_coefficients())]
    split = bf16(1 / log(2))
    lines += [constant("log2e_hi", split), constant("log2e_lo", bf16(1 / log(2) - split)), ""]
    lines += [constant(f"gelu_edge{i}", edge) for i, edge in enumerate(GELU_EDGES)]
    lines += [constant("gelu_s4", bf16(GELU_TOP))]
    for name, (first, high, low) in gelu_steps().items():
        lines += [constant(f"gelu_{name}", first)] if name != "centre" else []
        lines += [constant(f"gelu_{name}_high{i}", value) for i, value in enumerate(high)]
        lines += [constant(f"gelu_{name}_low{i}", value) for i, value in enumerate(low) if any(low)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(header(), end="")
