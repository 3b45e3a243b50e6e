"""The whole encoder side by side: this package's emulator, eager torch, Inductor, OpenVINO, CTranslate2.

    python benchmarks/encoder.py [--size base] [--rounds 15] [--variants eager,xdna] [--threads 2] [--out FOLDER]

Writes encoder-SIZE.json, encoder-SIZE.md and encoder.svg (every size found) into benchmarks/results. A variant whose
package is missing or fails gets a row that says so. All are times of this CPU (xdna: the emulator), none of them an
NPU's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from busy import busy_seconds
from encoder_report import picture, table
from encoder_variants import SIZES, VARIANTS
from encoder_worker import Failed, Worker, environment, in_process, prepare

RESULTS = Path(__file__).resolve().parent / "results"
WARM_UP = 2  # calls after the first that are not counted


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--rounds", type=int, default=15, help="calls of every variant, in turns")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="eager is always among them")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    chosen = ["eager", *(name for name in args.variants.split(",") if name != "eager")]
    if unknown := [name for name in chosen if name not in VARIANTS]:
        parser.error(f"no variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="encoder-") as folder:
        environment(args.threads, Path(folder))
        about, conversions = in_process(prepare, args.size, Path(folder), chosen)
        results, others = measure(args.size, conversions, chosen, args.rounds, args.threads, Path(folder))
    record = {
        "about": {
            "size": args.size,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "cpus": os.cpu_count(),
            "threads": args.threads,
            "rounds": args.rounds,
            "others_cpus": others,
            "took_s": time.perf_counter() - began,
            **about,
        },
        "results": results,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"encoder-{args.size}.json").write_text(json.dumps(rounded(record), indent=1) + "\n")
    (args.out / f"encoder-{args.size}.md").write_text(table(record))
    picture(args.out)
    print(table(record))
    return 1 if "failed" in results["eager"] or "failed" in results.get("xdna", {}) else 0


def measure(
    size: str,
    conversions: dict[str, float | str],
    variants: list[str],
    rounds: int,
    threads: int,
    folder: Path,
) -> tuple[dict[str, dict], float]:
    """Per variant what the table has, or under "failed" why not; CPUs that other work used during the turns."""
    results: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    try:
        for name in variants:
            results[name] = {"what": VARIANTS[name].what, "precision": VARIANTS[name].precision}
            try:
                converted = conversions.get(name)
                if isinstance(converted, str):
                    raise Failed(converted)
                if converted is not None:
                    results[name]["conversion_s"] = converted
                workers[name] = Worker(name, size, folder, threads)
                results[name] |= workers[name].ask("first")
                say(f"{size} {name}: first call {results[name]['first_call_s']:.2f} s")
            except Failed as why:
                give_up(name, results, workers, why)
        others = take_turns(workers, results, rounds)
        for name in list(workers):
            try:
                results[name] |= workers[name].ask("memory")
            except Failed as why:
                give_up(name, results, workers, why)
    finally:
        for worker in workers.values():
            worker.stop()
    return results, others


def take_turns(workers: dict[str, Worker], results: dict[str, dict], rounds: int) -> float:
    """One call of each worker per round, in an order that changes; medians, and ratios to eager within a round.

    Returns the CPUs that other work used meanwhile.
    """
    began = time.perf_counter(), busy_seconds()
    ours = 0.0
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    order = random.Random(0)
    for number in range(WARM_UP + rounds):
        for name in order.sample(list(workers), len(workers)):
            try:
                spent = workers[name].ask("call")
            except Failed as why:
                give_up(name, results, workers, why)
                continue
            ours += spent[1]
            if number >= WARM_UP:
                times[name].append(spent)
        say(f"round {number + 1} of {WARM_UP + rounds}")
    others = (busy_seconds() - began[1] - ours) / (time.perf_counter() - began[0])
    for name in workers:
        wall, cpu = zip(*times[name])
        results[name]["call_s"] = statistics.median(wall)
        results[name]["call_quartiles_s"] = statistics.quantiles(wall, n=4)[::2] if rounds > 1 else None
        results[name]["compile_s"] = max(0.0, results[name]["first_call_s"] - results[name]["call_s"])
        if "eager" in workers:
            eager_wall, eager_cpu = zip(*times["eager"])
            results[name]["ratio"] = statistics.median(a / b for a, b in zip(wall, eager_wall))
            results[name]["cpu_ratio"] = statistics.median(a / b for a, b in zip(cpu, eager_cpu))
    return max(0.0, others)


def give_up(name: str, results: dict[str, dict], workers: dict[str, Worker], why: Failed) -> None:
    say(f"{name}: {why}")
    results[name]["failed"] = str(why)
    if name in workers:
        workers.pop(name).stop()


def rounded(value: Any) -> Any:
    """Five significant digits: what a clock of this kind can tell."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
