"""The scheduler on loops whose answer is known by hand."""

from __future__ import annotations

from torch_xdna.kernels_xdna1 import schedule
from torch_xdna.kernels_xdna1.schedule import Unit

A, B, MULTIPLY, STORE, MOVE = (("load a",), ("load b", "load a"), ("multiply",), ("store",), ("move",))


def addition() -> list[Unit]:
    """Two loads, a product, a rounding store: every slot once."""
    return [
        Unit("load", A, [], 64, "accumulator"),
        Unit("load", B, [], 32, "vector"),
        Unit("multiply", MULTIPLY, [(0, 5, 0), (1, 7, 0)], 64, "accumulator"),
        Unit("store", STORE, [(2, 6, 0)]),
    ]


def test_independent_trips_overlap_up_to_the_slots() -> None:
    found = schedule.modulo(addition())
    assert (found.ii, found.length, found.stages) == (1, 14, 14)


def test_too_few_promised_trips_keep_the_interval_long() -> None:
    found = schedule.modulo(addition(), most_stages=2)
    assert found.ii == 7 and found.bound == "trips"


def test_a_store_that_the_next_load_waits_for_is_a_recurrence() -> None:
    units = addition()
    units[0].needs.append((3, 1, 1))
    assert schedule.modulo(units).ii == 12  # load to product 5, product to store 6, store to load 1


def test_reading_one_trip_ahead_halves_it() -> None:
    units = addition()
    units[0].needs.append((3, 1, 1))
    units[2].needs[0] = (0, 5, 1)
    assert schedule.modulo(units).ii == 6


def test_a_sum_over_trips_waits_for_the_adder() -> None:
    units = [
        Unit("load", B, [], 32, "vector"),
        Unit("multiply", MULTIPLY, [(0, 7, 0), (1, 4, 1)], 64, "accumulator"),
    ]
    assert schedule.modulo(units).ii == 4


def test_loops_beyond_what_the_pipeliner_tries_are_not_overlapped() -> None:
    def moves(count: int) -> list[Unit]:
        load = Unit("load", B, [], 32, "vector")
        return [load, *(Unit("move", MOVE, [(0, 7, 0)], 64, "vector") for _ in range(count))]

    assert schedule.modulo(moves(schedule.DEEPEST_MII)).pipelined
    assert not schedule.modulo(moves(schedule.DEEPEST_MII + 1)).pipelined


def test_registers_make_the_interval_longer() -> None:
    """Thirteen values that a store needs long after they were made do not fit twelve registers."""
    units = [Unit("load", B, [], 64, "vector") for _ in range(13)]
    units += [Unit("multiply", MULTIPLY, [(i, 7, 0) for i in range(13)], 64, "accumulator")]
    units += [Unit("store", STORE, [(13, 6, 0), *((i, 7, 0) for i in range(13))])]
    found = schedule.modulo(units)
    assert found.ii > found.mii


def test_what_lives_longer_than_a_trip_is_copied() -> None:
    units = [Unit("load", B, [], 64, "vector"), Unit("store", STORE, [(0, 7, 0)])]
    assert schedule.copies(units, [0, 7], 4) == 0
    assert schedule.copies(units, [0, 16], 4) == 2


def test_invariants_without_a_register_are_read_again() -> None:
    held = [Unit("held", (), [], 64, "vector") for _ in range(3)]
    units = [*held, Unit("multiply", MULTIPLY, [(i, 0, 0) for i in range(3)], 64, "accumulator")]
    again = schedule.reload(units, 2)
    assert again is not None and sum(unit.what == "load" for unit in again) == 4
    assert schedule.reload(units, 4) is None
