"""The modelled numbers of the README, docs/performance.md and benchmarks/results are those that the model gives now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from torch_xdna.lowering.time import estimate_encoder
from torch_xdna.lowering.time.__main__ import render
from torch_xdna.lowering.time.held_out import leave_out

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "performance.md").read_text()


def rows(text: str) -> list[list[str]]:
    """Cells of every table line."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_calibration_table_is_the_regenerated_one(page):
    array = [line for line in render(markdown=True).splitlines() if re.match(r"\| G\d+ \|", line)]
    shown = [line for line in page.splitlines() if re.match(r"\| G\d+ \|", line)]
    assert len(array) == 10 and shown == array
    summary = render().splitlines()[-1].replace("%", " %")
    assert summary.removeprefix("array rows: ") in page
    assert render(markdown=True) in (RESULTS / "modelled_calibration.md").read_text()


def test_the_encoders_of_the_results_are_the_models():
    table = rows((RESULTS / "modelled_encoders.md").read_text())[1:]
    assert len(table) == 13  # with the line under the head
    for model, clock, shown, *_ in table[1:]:
        seconds = estimate_encoder(model, clock_ghz=float(clock)).seconds
        assert float(shown) == pytest.approx(1e3 * seconds, abs=0.06), "run python benchmarks/modelled.py"


def test_the_page_shows_the_results(page):
    results = {(line[0], line[1]): line for line in rows((RESULTS / "modelled_encoders.md").read_text())}
    for model in ("tiny", "base", "small"):
        slow, fast = results[model, "1.03"], results[model, "1.6"]
        line = next(line for line in rows(page) if line[0] == model)
        simulated, factor = re.match(r"([\d.]+) ms \((\d+) x", line[1]).groups()  # type: ignore[union-attr]
        assert float(simulated) == pytest.approx(float(slow[4]), rel=0.002)
        assert int(factor) == pytest.approx(30e3 / float(slow[4]), abs=1)
        assert float(line[2].removesuffix(" ms")) == pytest.approx(float(fast[4]), rel=0.002)
        assert line[3].removesuffix(" ms") == slow[10]
        assert float(line[4].removesuffix(" ms")) == pytest.approx(float(slow[6]), rel=0.003)
        assert float(slow[4]) <= float(slow[5]) and float(fast[4]) <= float(fast[5]), "the targets"


def test_the_readme_says_the_same(page):
    text = " ".join((ROOT / "README.md").read_text().split())
    for model in ("tiny", "base", "small"):
        line = next(line for line in rows(page) if line[0] == model)
        assert f"{model} {line[1].partition(' ms')[0]} ms" in text
        assert not line[3] or f"{line[3]} ({model})" in text
    (median, worst) = re.findall(r"median absolute error ([\d.]+ %), worst ([\d.]+ %)", page)[0]
    assert f"median error is {median}, its worst {worst}" in text


def test_the_page_says_how_well_groups_left_out_are_met(page):
    for key in ("input type", "source"):
        worst = max(held.worst for held in leave_out(key))
        assert f"{100 * worst:.1f} %" in page, key
