"""Runs benchmarks/test_layers.py and keeps its medians: layers-SIZE.json and layers-SIZE.md in benchmarks/results.

    python benchmarks/layers.py [--size base] [--quick] [--out FOLDER]

The whole encoder is left to benchmarks/encoder.py, whose variants take turns. `make bench` runs all sizes and shows
pytest-benchmark's own tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from busy import busy_now, remark

HERE = Path(__file__).resolve().parent
BASELINE = "eager-fp32"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("tiny", "base", "small"), default="base")
    parser.add_argument("--quick", action="store_true", help="two layers, a few rounds")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args(arguments)
    chosen = f"{args.size} and not encoder" + (" and (qkv or layer_norm)" if args.quick else "")
    others = busy_now()
    with tempfile.TemporaryDirectory(prefix="layers-") as folder:
        written = Path(folder) / "layers.json"
        done = subprocess.run(
            [
                sys.executable, "-m", "pytest", str(HERE / "test_layers.py"), "-v", "--benchmark-only", "-k", chosen,
                f"--benchmark-json={written}", f"--benchmark-max-time={0.05 if args.quick else 0.5}",
                "--benchmark-min-rounds=5", "--benchmark-warmup=on", "--benchmark-warmup-iterations=3",
                "--benchmark-columns=median,iqr,rounds", "--benchmark-group-by=group",
                "-p", "no:cacheprovider",
            ],
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder},
        )  # fmt: skip
        if not written.exists() or not written.stat().st_size:
            return done.returncode or 1
        report = json.loads(written.read_text())
    if not report["benchmarks"]:
        return done.returncode or 1
    record = trimmed(report, args.size, others)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"layers-{args.size}.json").write_text(json.dumps(record, indent=1) + "\n")
    (args.out / f"layers-{args.size}.md").write_text(table(record))
    return done.returncode


def trimmed(report: dict[str, Any], size: str, others: float) -> dict[str, Any]:
    """pytest-benchmark's report without its thousands of rounds; seconds."""
    layers: dict[str, dict[str, dict[str, float]]] = {}
    for bench in report["benchmarks"]:
        stats = bench["stats"]
        kept = {"median": float(f"{stats['median']:.4g}"), "iqr": float(f"{stats['iqr']:.2g}")}
        layer, variant = bench["params"]["layer"], bench["params"]["variant"]
        layers.setdefault(layer, {})[variant] = kept | {"rounds": stats["rounds"]}
    cpu = report["machine_info"].get("cpu", {})
    about = {
        "size": size,
        "date": report["datetime"][:10],
        "cpu": cpu.get("brand_raw", "a CPU"),
        "cpus": cpu.get("count", os.cpu_count()),
        "others_cpus": others,
        **report["benchmarks"][0]["extra_info"],
    }
    return {"about": about, "layers": layers}


def table(record: dict[str, Any]) -> str:
    """A row per layer, a column per variant: median ms, and the ratio to eager fp32."""
    about = record["about"]
    variants = list(dict.fromkeys(name for row in record["layers"].values() for name in row))
    lines = [
        f"# Whisper {about['size']}'s layers, measured on a CPU",
        "",
        f"{about['cpu']}, {about['cpus']} CPUs, {about['threads']} threads, torch {about['torch']}, {about['date']}. "
        "Context 1500, batch 1, random weights. No NPU is involved: xdna is the emulator. "
        f"{remark(about['others_cpus'], 'just before')} "
        f"Regenerate with `python benchmarks/layers.py --size {about['size']}`.",
        "",
        "Median ms by pytest-benchmark, in brackets times eager fp32. Each layer is compiled and called by itself, one "
        f"variant after the other; for the whole encoder, calls in turns, see encoder-{about['size']}.md.",
        "",
        f"| layer | {' | '.join(variants)} |",
        f"| --- |{' --- |' * len(variants)}",
    ]
    for layer, row in record["layers"].items():
        lines.append(f"| {layer} | {' | '.join(_cell(row, name) for name in variants)} |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, dict[str, float]], name: str) -> str:
    if name not in row:
        return "failed"
    median = f"{1e3 * row[name]['median']:.3g}"
    if name == BASELINE or BASELINE not in row:
        return median
    return f"{median} ({row[name]['median'] / row[BASELINE]['median']:.2f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
