"""torch_xdna.partitioning.fusion on regions written by hand: what moves into a product, what must not."""

from __future__ import annotations

from dataclasses import replace

from torch_xdna.lowering.ops import Activation, Add, Gelu, LayerNorm, Linear, Op, Param, Region, Value
from torch_xdna.partitioning.fusion import fuse

PARAMS = (Param("w", (64, 64)), Param("v", (64, 64)), Param("g", (64,)))


def linear(out: int, x: int, weight: str = "w") -> Linear:
    return Linear(out, x, weight, None)


def region(*ops: Op, outputs: tuple[int, ...] | None = None) -> Region:
    """Value 0 is the input; each op writes the next value."""
    values = tuple(Value(i, 32, 64) for i in range(len(ops) + 1))
    return Region(values, (0,), outputs or (len(ops),), PARAMS, ops)


def fused(*ops: Op, outputs: tuple[int, ...] | None = None) -> list[Op]:
    before = region(*ops, outputs=outputs)
    after = fuse(before)
    assert after.outputs == before.outputs and after.params == before.params
    assert {v.id for v in after.values} == {0, *(op.out for op in after.ops)}
    written = {0}
    for op in after.ops:  # still in an order in which everything is written before it is read
        assert set(op.inputs) <= written
        written.add(op.out)
    return list(after.ops)


def test_gelu_moves_into_the_product_before_it() -> None:
    assert fused(linear(1, 0), Gelu(2, 1)) == [replace(linear(1, 0), out=2, activation=Activation.GELU)]


def test_a_residual_moves_in_from_either_side() -> None:
    for x, y in ((0, 1), (1, 0)):
        assert fused(linear(1, 0), Add(2, x, y)) == [replace(linear(1, 0), out=2, residual=0)]


def test_gelu_then_residual_both_move_in() -> None:
    assert fused(linear(1, 0), Gelu(2, 1), Add(3, 2, 0)) == [
        replace(linear(1, 0), out=3, activation=Activation.GELU, residual=0)
    ]


def test_gelu_of_a_sum_stays() -> None:
    """The product applies GELU before it adds the residual."""
    ops = fused(linear(1, 0), Add(2, 0, 1), Gelu(3, 2))
    assert ops == [replace(linear(1, 0), out=2, residual=0), Gelu(3, 2)]


def test_one_residual_per_product() -> None:
    ops = fused(linear(1, 0), Add(2, 0, 1), Add(3, 0, 2))
    assert ops == [replace(linear(1, 0), out=2, residual=0), Add(3, 0, 2)]


def test_a_product_that_is_read_twice_stays() -> None:
    assert fused(linear(1, 0), Gelu(2, 1), Add(3, 1, 2)) == [linear(1, 0), Gelu(2, 1), Add(3, 1, 2)]
    assert fused(linear(1, 0), Add(2, 1, 1)) == [linear(1, 0), Add(2, 1, 1)]


def test_a_product_that_is_an_output_stays() -> None:
    assert fused(linear(1, 0), Gelu(2, 1), outputs=(1, 2)) == [linear(1, 0), Gelu(2, 1)]


def test_only_one_of_two_products_takes_the_other_as_residual() -> None:
    """And stands after it."""
    ops = fused(linear(1, 0), linear(2, 0, "v"), Add(3, 1, 2))
    assert ops == [linear(1, 0), replace(linear(2, 0, "v"), out=3, residual=1)]


def test_a_residual_computed_between_the_two_is_written_first() -> None:
    norm = LayerNorm(2, 0, "g", "g")
    assert fused(linear(1, 0), norm, Add(3, 2, 1)) == [norm, replace(linear(1, 0), out=3, residual=2)]
