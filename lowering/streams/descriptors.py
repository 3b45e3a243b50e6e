"""Nested loops over device memory -> as few shim transfers as the descriptors' dimensions allow.

A `Pattern` says which words a stream reads or writes, in order: loops (count, step), outermost first, around
a contiguous run. A descriptor has three dimensions and a repeat; steps are positive and limited, only the
repeat may have step 0. `fit` maps the inner loops on them and writes out what is left as separate transfers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from torch_xdna.lowering import limits
from torch_xdna.lowering.buffers import Forms, Pattern
from torch_xdna.lowering.errors import LimitError

Four = tuple[int, int, int, int]
WIDEST_ROW = 512  # words: a run longer than a wrap is written as rows of this many words


@dataclass(frozen=True)
class Transfer:
    """One transfer: word offset, sizes and strides in words, outermost first."""

    offset: int
    sizes: Four
    strides: Four

    @property
    def words(self) -> int:
        return self.sizes[0] * self.sizes[1] * self.sizes[2] * self.sizes[3]


def fit(pattern: Pattern) -> list[Transfer]:
    """The transfers that make `pattern`, in its order."""
    loops, run = simplify(pattern.loops, pattern.run)
    forms = pattern.forms
    if not forms.wrapped:
        return list(_pieces(pattern.base, loops, _pop_repeat(loops, forms), [], run))
    rows: list[tuple[int, int]] = []  # loops on the descriptor's dimensions 1 and 2, innermost first
    row = run
    fewest = 2 if forms.iterated else 1  # loops for which it pays to write a long run as rows
    splits = run % WIDEST_ROW == 0 or forms.iterated
    if (len(loops) >= fewest and _positive(loops[-1]) and splits) or (
        loops and run <= limits.SHIM_WRAP.maximum
    ):
        if run > limits.SHIM_WRAP.maximum:
            row, rows, loops = _split_run(run, loops)
        while loops and len(rows) < 2 and _positive(loops[-1]) and (rows or _wraps(loops[-1])):
            rows.append(loops.pop())
    elif len(loops) == 1 and _positive(loops[0]) and loops[0][0] > limits.SHIM_ITERATION.maximum:
        row, rows, loops = _split_run(run, loops)
        if loops and _positive(loops[-1]):
            rows.append(loops.pop())
    return list(_pieces(pattern.base, loops, _pop_repeat(loops, forms), rows, row))


def _pop_repeat(loops: list[tuple[int, int]], forms: Forms) -> tuple[int, int]:
    """Take the loop that the descriptor's repeat can do; (1, 0) if there is none."""
    if not loops or loops[-1][1] > limits.SHIM_STEP.maximum:
        return 1, 0
    return loops.pop() if (forms.iterated if loops[-1][1] else forms.repeated) else (1, 0)


def simplify(loops: Sequence[tuple[int, int]], run: int) -> tuple[list[tuple[int, int]], int]:
    """Drop loops of one trip, join loops that continue each other and loops that continue the run."""
    joined: list[tuple[int, int]] = []
    for count, step in reversed([loop for loop in loops if loop[0] != 1]):
        if not joined and step == run:
            run *= count
        elif joined and step == joined[-1][0] * joined[-1][1]:
            joined[-1] = (joined[-1][0] * count, joined[-1][1])
        else:
            joined.append((count, step))
    return joined[::-1], run


def _positive(loop: tuple[int, int]) -> bool:
    return 1 <= loop[1] <= limits.SHIM_STEP.maximum


def _wraps(loop: tuple[int, int]) -> bool:
    return loop[0] <= limits.SHIM_WRAP.maximum


def _split_run(
    run: int, loops: list[tuple[int, int]]
) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
    """A run longer than a wrap -> (row, [rows loop], outer loops): as many rows of 512 words as fit."""
    if run % WIDEST_ROW:
        raise LimitError(f"{limits.SHIM_WRAP.name}: a run of {run} words is no multiple of {WIDEST_ROW}")
    count = run // WIDEST_ROW
    whole = next(n for n in range(min(count, limits.SHIM_WRAP.maximum), 0, -1) if count % n == 0)
    outer = [*loops, (count // whole, whole * WIDEST_ROW)] if whole < count else loops
    return WIDEST_ROW, [(whole, WIDEST_ROW)], outer


def _pieces(
    base: int,
    loops: list[tuple[int, int]],
    repeat: tuple[int, int],
    rows: list[tuple[int, int]],
    row: int,
) -> Iterator[Transfer]:
    first = rows[0] if rows else (1, 0)
    second = rows[1] if len(rows) > 1 else (1, 0)
    longest = limits.SHIM_ITERATION.maximum
    for indices in product(*(range(count) for count, _ in loops)):
        offset = base + sum(i * step for i, (_, step) in zip(indices, loops))
        for start in range(0, repeat[0], longest):
            count = min(longest, repeat[0] - start)
            step = repeat[1] if count > 1 else 0
            sizes = (count, second[0], first[0], row)
            yield Transfer(offset + start * repeat[1], sizes, (step, second[1], first[1], 1))
