"""AIECC_STEPS.md against the pass lists that the tests run, and the choice between them; needs no tools."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiecc_passes import (
    APRIL,
    AUGUST,
    IN_PLACE_OF_VECTORS,
    INTRINSICS,
    VECTORS,
    Driver,
    driver_of,
    flat,
    names_in_help,
    pipeline,
)

SECTIONS = Path(__file__).with_name("AIECC_STEPS.md").read_text().split("\n## ")[1:4]
PARTS = ("resources", "sequence", "core")
HELP = """\
OVERVIEW: MLIR modular optimizer driver
  --color                               - Use colors in output
      --aie-assign-bd-ids               -   Assign bd ids to bd ops.
        --alloc-scheme=<string>         - Select allocation scheme
      --canonicalize                    -   Canonicalize operations
    Pass Pipelines:
      --convert-vector-to-aievec        -   This pass pipeline
"""


@pytest.mark.parametrize(("column", "driver"), [(1, APRIL), (2, AUGUST)])
@pytest.mark.parametrize("part", PARTS)
def test_tables_name_the_passes_in_the_drivers_order(part: str, column: int, driver: Driver) -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| (yes|-) \| (yes|-) \| (.+) \|$", SECTIONS[PARTS.index(part)], re.MULTILINE
    )
    assert len(rows) == SECTIONS[PARTS.index(part)].count("\n| `"), "a row that this test does not read"
    assert [row[0] for row in rows if row[column] == "yes"] == flat(getattr(driver, part))
    assert all("run" in row[3] for row in rows)


def test_the_driver_is_that_of_the_passes_that_aie_opt_has() -> None:
    known = names_in_help(HELP)
    assert {"aie-assign-bd-ids", "canonicalize", VECTORS} <= known
    assert driver_of(known) is APRIL
    assert driver_of({*known, "aie-objectFifo-unroll"}) is AUGUST


@pytest.mark.parametrize("driver", [APRIL, AUGUST])
def test_vector_passes_that_aie_opt_lacks_are_replaced(driver: Driver) -> None:
    whole = pipeline(driver.resources, {VECTORS})
    assert f"{VECTORS}{{aie-target=aie2" in whole
    replaced = pipeline(driver.resources, ())
    assert VECTORS not in replaced and ",".join((*IN_PLACE_OF_VECTORS, "lower-affine")) in replaced
    assert INTRINSICS in pipeline(driver.core, {INTRINSICS}) and INTRINSICS not in pipeline(driver.core, ())


@pytest.mark.parametrize("driver", [APRIL, AUGUST])
def test_token_ids_are_assigned_before_their_routes_and_those_before_routing(driver: Driver) -> None:
    names = flat(driver.resources)
    order = [
        "aie-assign-tile-controller-ids",
        "aie-generate-column-control-overlay",
        "aie-create-pathfinder-flows",
    ]
    assert [name for name in names if name in order] == order
