"""The layout algebra (torch_xdna.matching.layout), held to what torch's own views do to real elements."""

from __future__ import annotations

import itertools
import math

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_xdna.matching.layout import Axis, fresh, full, normal, numel, pieces, regroup, split_like

HEADS = (full("b", 2), full("r", 3), full("c", 512))


def flat(dims) -> list:
    return [axis for dim in dims for axis in dim]


def text(dims) -> str:
    return " ".join("[" + " ".join(map(str, dim)) + "]" for dim in dims)


def elements(dims, sizes: dict[str, int]) -> torch.Tensor:
    """The tensor that the dimensions describe, of the numbers of its elements in its roles, row-major."""
    roles = list(sizes)
    strides = {role: math.prod(sizes[r] for r in roles[i + 1 :]) for i, role in enumerate(roles)}
    shape = [numel(dim) for dim in dims]
    out = torch.zeros([axis.size for axis in flat(dims)] or [1], dtype=torch.long)
    for i, axis in enumerate(flat(dims)):
        steps = torch.arange(axis.size) * axis.stride * strides[axis.role]
        out += steps.reshape([-1] + [1] * (len(flat(dims)) - i - 1))
    return out.reshape(shape)


def test_the_picture_in_the_docstring() -> None:
    split = regroup(flat(HEADS), [2, 3, 8, 64])
    assert text(split) == "[b] [r] [c:64x8] [c]"
    moved = [split[i] for i in (0, 2, 1, 3)]
    assert text(moved) == "[b] [c:64x8] [r] [c]"
    assert text(regroup(flat(moved), [16, 3, 64])) == "[b c:64x8] [r] [c]"
    back = [regroup(flat(moved), [2, 8, 3, 64])[i] for i in (0, 2, 1, 3)]
    assert regroup(flat(back), [2, 3, 512]) == HEADS


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms(use_true_random=False), st.integers(0, 3)
)
def test_views_and_permutes_as_torch_does_them(shape: list[int], random, rounds: int) -> None:
    sizes = {str(i): s for i, s in enumerate(shape)}
    dims, real = fresh(shape), torch.arange(math.prod(shape)).reshape(shape)
    for _ in range(rounds):
        order = random.sample(range(len(dims)), len(dims))
        dims, real = tuple(dims[i] for i in order), real.permute(order)
        factors = [f for s in real.shape for f in _factors(s)]
        random.shuffle(factors)
        view = [math.prod(g) for g in _cut(factors, random)]
        made = regroup(flat(dims), view)
        if made is not None:
            dims, real = made, real.reshape(view)
    assert [numel(dim) for dim in dims] == list(real.shape)
    assert torch.equal(elements(dims, sizes), real)


def _factors(n: int) -> list[int]:
    return {1: [], 2: [2], 3: [3], 4: [2, 2]}.get(n) or ([] if n == 1 else [n])


def _cut(factors: list[int], random) -> list[list[int]]:
    cuts = sorted(random.choices(range(len(factors) + 1), k=2))
    return [factors[a:b] for a, b in itertools.pairwise([0, *cuts, len(factors)])]


@pytest.mark.parametrize("sizes", [[2, 3, 256], [2, 3, 1024], [4, 384, 2], [2, 3, 5, 102], [3072, 2]])
def test_what_does_not_divide_is_refused(sizes: list[int]) -> None:
    assert regroup(flat(HEADS), sizes) is None


def test_a_symbolic_batch_is_cut_only_where_it_divides() -> None:
    n = sympy.Symbol("n", positive=True, integer=True)
    dims = (full("b", n), full("r", 3), full("c", 128))
    assert text(regroup(flat(dims), [3 * n, 2, 64])) == "[b r] [c:64x2] [c]"
    assert text(regroup(flat(dims), [6 * n, 64])) == "[b r c:64x2] [c]"
    assert regroup(flat(dims), [n + 1, 3, 128]) is None


def test_neighbours_merge_only_if_they_continue_each_other() -> None:
    assert normal([Axis("c", 64, 8), Axis("c", 1, 64)]) == full("c", 512)
    assert normal([Axis("c", 1, 64), Axis("c", 64, 8)]) == (Axis("c", 1, 64), Axis("c", 64, 8))
    assert normal([Axis("r", 64, 8), Axis("c", 1, 64)]) == (Axis("r", 64, 8), Axis("c", 1, 64))
    assert normal([Axis("b", 7, 1)]) == () == full("r", 1)


def test_lining_up_with_another_layout() -> None:
    merged = (full("b", 2), (*full("r", 3), *full("c", 4)))
    like = ((Axis("0", 1, 2),), (Axis("1", 4, 3), Axis("1", 1, 4)))
    assert split_like(merged, like) == {
        Axis("0", 1, 2): full("b", 2),
        Axis("1", 4, 3): full("r", 3),
        Axis("1", 1, 4): full("c", 4),
    }
    assert split_like(merged, like[:1]) is None
    assert split_like(merged, (like[0], (Axis("1", 6, 2), Axis("1", 1, 6)))) is None


def test_pieces_of_a_role_come_outermost_first() -> None:
    dims = ((Axis("c", 1, 64),), full("r", 3), (Axis("c", 64, 8),))
    assert [axis.stride for axis in pieces(dims, "c")] == [64, 1]
    n = sympy.Symbol("n", positive=True, integer=True)
    assert [axis.stride for axis in pieces(((Axis("b", 3, n), Axis("b", n, 2)),), "b")] == [n, 3]
