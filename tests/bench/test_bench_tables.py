"""The benchmark scripts: that they run, divide the right numbers, and lose no row for another's failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


class Clockwork:
    """A worker whose calls take the given seconds; it fails when they are used up."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.stopped = False

    def ask(self, question: str) -> tuple[float, float]:
        from encoder_worker import Failed

        if not self.seconds:
            raise Failed("its process ended")
        spent = self.seconds.pop(0)
        return spent, 2 * spent

    def stop(self) -> None:
        self.stopped = True


@pytest.mark.slow
def test_encoder_on_a_toy(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "encoder.py"), "--size", "toy", "--rounds", "2"]
    subprocess.run([*command, "--variants", "eager,xdna", "--out", str(tmp_path)], check=True, timeout=240)
    record = json.loads((tmp_path / "encoder-toy.json").read_text())
    eager, xdna = record["results"]["eager"], record["results"]["xdna"]
    assert eager["ratio"] == 1 and eager["relative_error"] < 1e-5  # fp32
    assert 1e-5 < xdna["relative_error"] < 2e-2  # bf16
    assert xdna["first_call_s"] > xdna["call_s"] > 0 and xdna["peak_mb"] >= xdna["resident_mb"] > 100
    assert "| xdna | bf16, emulated |" in (tmp_path / "encoder-toy.md").read_text()


def test_turns_divide_within_a_round_and_skip_the_warm_up(scripts: None) -> None:
    import encoder

    workers = {
        "eager": Clockwork(9, 9, 1, 2, 4),
        "xdna": Clockwork(90, 90, 3, 4, 4),
        "inductor": Clockwork(1, 1, 1),
    }
    alive, broken = dict(workers), workers["inductor"]
    results = {name: {"first_call_s": 10.0} for name in workers}
    encoder.take_turns(alive, results, rounds=3)
    assert results["xdna"]["call_s"] == 4 and results["eager"]["call_s"] == 2
    assert results["xdna"]["ratio"] == 2 and results["xdna"]["compile_s"] == 6  # of 3, 2 and 1; 10 less 4
    assert results["inductor"] == {"first_call_s": 10.0, "failed": "its process ended"}
    assert broken.stopped and list(alive) == ["eager", "xdna"]


def test_a_missing_package_is_a_row(scripts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import encoder
    from encoder_report import table
    from encoder_variants import VARIANTS, Variant

    monkeypatch.setitem(VARIANTS, "eager", Variant(VARIANTS["eager"].load, "fp32", "what", "no-such-package"))
    results, _ = encoder.measure("toy", {}, ["eager"], 2, 1, tmp_path)
    about = {"size": "toy", "cpu": "a CPU", "capability": "", "cpus": 1, "threads": 1, "rounds": 2}
    text = table({"about": about | {"date": "", "versions": {}, "others_cpus": 0.0}, "results": results})
    assert "- eager: not installed: no-such-package" in text


def test_layers_keep_medians_and_ratios(scripts: None) -> None:
    import layers

    def bench(variant: str, median: float) -> dict[str, object]:
        stats = {"median": median, "iqr": 0.0001, "rounds": 7, "data": [median] * 7}
        params = {"layer": "fc1", "variant": variant, "size": "tiny"}
        return {"stats": stats, "params": params, "extra_info": {"torch": "2.13.0", "threads": 2}}

    report = {
        "benchmarks": [bench("eager-fp32", 0.02), bench("xdna", 0.03)],
        "machine_info": {"cpu": {"brand_raw": "a CPU", "count": 2}},
        "datetime": "2026-11-22T19:00:00",
    }
    record = layers.trimmed(report, "tiny", 0.5)
    assert record["layers"]["fc1"]["xdna"] == {"median": 0.03, "iqr": 0.0001, "rounds": 7}
    assert "| fc1 | 20 | 30 (1.50) |" in layers.table(record)
