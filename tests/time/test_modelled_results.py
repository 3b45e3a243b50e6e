"""The modelled numbers that the README and benchmarks/results show are the ones that the model gives now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lowering.time import estimate_encoder
from lowering.time.__main__ import render
from lowering.time.held_out import leave_out

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def readme() -> str:
    text = (ROOT / "README.md").read_text()
    return text[text.index("## Performance, modelled") :]


def rows(text: str) -> list[list[str]]:
    """Cells of every table line."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_calibration_table_is_the_regenerated_one(readme):
    array = [line for line in render(markdown=True).splitlines() if re.match(r"\| G\d+ \|", line)]
    shown = [line for line in readme.splitlines() if re.match(r"\| G\d+ \|", line)]
    assert len(array) == 10 and shown == array
    summary = render().splitlines()[-1].replace("%", " %")
    assert summary.removeprefix("array rows: ") in readme
    assert render(markdown=True) in (RESULTS / "modelled_calibration.md").read_text()


def test_the_encoders_of_the_results_are_the_models():
    table = rows((RESULTS / "modelled_encoders.md").read_text())[1:]
    assert len(table) == 13  # with the line under the head
    for model, clock, shown, *_ in table[1:]:
        seconds = estimate_encoder(model, clock_ghz=float(clock)).seconds
        assert float(shown) == pytest.approx(1e3 * seconds, abs=0.06), "run python benchmarks/modelled.py"


def test_the_readme_shows_the_results(readme):
    results = {(line[0], line[1]): line for line in rows((RESULTS / "modelled_encoders.md").read_text())}
    for model in ("tiny", "base", "small"):
        slow, fast = results[model, "1.03"], results[model, "1.6"]
        line = next(line for line in rows(readme) if line[0] == model)
        simulated, factor = re.match(r"([\d.]+) ms \((\d+) x", line[1]).groups()  # type: ignore[union-attr]
        assert float(simulated) == pytest.approx(float(slow[4]), rel=0.002)
        assert int(factor) == pytest.approx(30e3 / float(slow[4]), abs=1)
        assert float(line[2].removesuffix(" ms")) == pytest.approx(float(fast[4]), rel=0.002)
        assert line[3].removesuffix(" ms") == slow[10]
        assert float(line[4].removesuffix(" ms")) == pytest.approx(float(slow[6]), rel=0.003)
        assert float(slow[4]) <= float(slow[5]) and float(fast[4]) <= float(fast[5]), "the targets"


def test_the_readme_says_how_well_groups_left_out_are_met(readme):
    for key in ("input type", "source"):
        worst = max(held.worst for held in leave_out(key))
        assert f"{100 * worst:.1f} %" in readme, key
