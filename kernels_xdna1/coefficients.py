"""Generates kernels/coefficients.hpp: the polynomials of the exponential and of GELU, with their errors.

The core multiplies bf16 by bf16 and adds fp32, so in a Horner scheme only the highest coefficient is a multiplicand and
must be a bf16 number; all others are added, in fp32. Each fit is minimax (Lawson's reweighted least squares); the highest
coefficient is rounded to bf16 and the rest is fitted again around it.

    python -m kernels_xdna1.coefficients > kernels_xdna1/kernels/coefficients.hpp
"""

from __future__ import annotations

from math import erf, erfc, log, sqrt

import numpy as np

GELU_EDGES = (1.0, 2.25, 4.25)
"""|x| below the first: even polynomial of x; then centred pieces; |x| is clamped to the last, where the tail is zero."""
GELU_CENTRES = (1.625, 3.25)


def bf16(x: float) -> float:
    """The nearest bf16 number, ties to even."""
    bits = int(np.float32(x).view(np.uint32))
    return float(np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32))


def minimax(points: np.ndarray, values: np.ndarray, powers: list[int]) -> np.ndarray:
    """Coefficients of `powers` that minimise the largest absolute error over the points."""
    return minimax_basis(np.stack([points**p for p in powers], axis=1), values)


def minimax_basis(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients of the columns of `basis` that minimise the largest absolute error."""
    weights = np.ones(len(values))
    best, least = np.zeros(basis.shape[1]), np.inf
    for _ in range(400):
        root = np.sqrt(weights)[:, None]
        fit = np.linalg.lstsq(basis * root, values * root[:, 0], rcond=None)[0]
        error = np.abs(basis @ fit - values)
        if error.max() < least:
            best, least = fit, error.max()
        weights = weights * error
        weights /= weights.sum()
    return best


def fit(points: np.ndarray, values: np.ndarray, powers: list[int]) -> np.ndarray:
    """As `minimax`, with the highest coefficient a bf16 number."""
    top = bf16(minimax(points, values, powers)[-1])
    rest = minimax(points, values - top * points ** powers[-1], powers[:-1])
    return np.append(rest, top)


def exp2_coefficients() -> np.ndarray:
    """s with 2^(f + 1/2) = s0 + f (s1 + f (s2 + f (s3 + f s4))) for |f| <= 1/2."""
    f = np.cos(np.linspace(0, np.pi, 2001)) / 2
    return fit(f, 2.0 ** (f + 0.5), [0, 1, 2, 3, 4])


def gelu_tail(a: np.ndarray) -> np.ndarray:
    """gelu(x) - max(x, 0) as a function of a = |x|."""
    return np.array([-t * erfc(t / sqrt(2)) / 2 for t in a])


def gelu_even(a: np.ndarray) -> np.ndarray:
    """gelu(x) - x / 2 as a function of a = |x|."""
    return np.array([t * erf(t / sqrt(2)) / 2 for t in a])


def gelu_coefficients() -> list[np.ndarray]:
    """Per piece (base, s0, s1, s2, s3): base + v (s0 + v (s1 + v (s2 + v s3))).

    v is x^2 in the first piece (whose base is x/2, so 0 here), |x| - centre in the others (base: max(x, 0) + base).
    """
    nodes = (1 - np.cos(np.linspace(0, np.pi, 2001))) / 2
    a = nodes * GELU_EDGES[0]
    pieces = [np.append(0.0, fit(a * a, gelu_even(a), [1, 2, 3, 4]))]
    for first, last, centre in zip(GELU_EDGES, GELU_EDGES[1:], GELU_CENTRES):
        a = first + nodes * (last - first)
        pieces.append(fit(a - centre, gelu_tail(a), [0, 1, 2, 3, 4]))
    # The last piece ends in zero, so that very negative inputs give zero; where its values are above 1/64, a bf16 ulp
    # leaves less room.
    end = GELU_EDGES[-1] - GELU_CENTRES[-1]
    tail = gelu_tail(a)
    pieces[-1] = fit_through_zero(a - GELU_CENTRES[-1], tail, end, np.where(tail <= -1 / 64, 5.0, 1.0))
    return pieces


def fit_through_zero(points: np.ndarray, values: np.ndarray, zero: float, weights: np.ndarray) -> np.ndarray:
    """As `fit` with the powers 0..4, errors weighted, but the polynomial is zero at `zero`."""
    basis = np.stack([points**p - zero**p for p in (1, 2, 3, 4)], axis=1)

    def weighted(values: np.ndarray, terms: int) -> np.ndarray:
        return minimax_basis(basis[:, :terms] * weights[:, None], values * weights)

    top = bf16(weighted(values, 4)[-1])
    s = np.append(weighted(values - top * basis[:, 3], 3), top)
    # The core rounds the innermost step to bf16: the zero is exact for what it computes.
    at_zero = zero * (s[0] + zero * (s[1] + zero * bf16(s[2] + zero * s[3])))
    return np.append(-at_zero, s)


def polynomial(s: np.ndarray, v: np.ndarray) -> np.ndarray:
    """s[0] + s[1] v + ..."""
    return sum(c * v**i for i, c in enumerate(s))


def errors() -> dict[str, float]:
    """Largest absolute error of each polynomial in exact arithmetic (roundings of the core come on top)."""
    f = np.linspace(-0.5, 0.5, 20001)
    found = {"exp2": float(np.abs(polynomial(exp2_coefficients(), f) - 2.0 ** (f + 0.5)).max())}
    edges = (0.0, *GELU_EDGES)
    for i, s in enumerate(gelu_coefficients()):
        a = np.linspace(edges[i], edges[i + 1], 20001)
        got = polynomial(s, a * a) if i == 0 else polynomial(s, a - GELU_CENTRES[i - 1])
        exact = gelu_even(a) if i == 0 else gelu_tail(a)
        found[f"gelu [{edges[i]:g}, {edges[i + 1]:g})"] = float(np.abs(got - exact).max())
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
    split = bf16(1 / log(2))
    lines += [constant("log2e_hi", split), constant("log2e_lo", bf16(1 / log(2) - split)), ""]
    lines += [constant(f"gelu_edge{i}", e) for i, e in enumerate(GELU_EDGES)]
    lines += [constant(f"gelu_centre{i}", c) for i, c in enumerate(GELU_CENTRES, 1)]
    for i, piece in enumerate(gelu_coefficients()):
        names = ["base", "s0", "s1", "s2", "s3"]
        lines += [constant(f"gelu{i}_{n}", s) for n, s in zip(names, piece) if (i, n) != (0, "base")]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(header(), end="")
