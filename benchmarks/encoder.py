"""The whole encoder: time of a call against eager fp32, first call, resident memory.

    python benchmarks/encoder.py [--size base] [--rounds 15] [--variants eager,xdna,inductor]

Writes benchmarks/results/encoder-SIZE.json and .md. Each variant has a fresh process, for its memory and its first
call; times of a call come from one more process in which eager and the variant take turns, so that other work on
the machine meets both. All are times of this CPU (xdna: the emulator), none of them an NPU's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SIZES = {"tiny": (384, 4), "base": (512, 6), "small": (768, 12)}
VARIANTS = ("eager", "xdna", "inductor")


def build(size: str):
    """(encoder with random weights, mel of one clip)."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    width, layers = SIZES[size]
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=width, encoder_layers=layers, encoder_attention_heads=width // 64, encoder_ffn_dim=4 * width
    )
    return WhisperEncoder(config).eval(), torch.randn(1, 80, 3000)


def as_variant(model, variant: str):
    import torch

    if variant == "eager":
        return model
    options = {"device": "emulator", "fallback": "error"} if variant == "xdna" else None
    return torch.compile(model, backend=variant, options=options)


def footprint(size: str, variant: str) -> dict[str, float]:
    """First call (s), memory after a few calls and at its peak (MB): of the process that calls this."""
    import torch

    with torch.no_grad():
        model, mel = build(size)
        began = time.perf_counter()
        run = as_variant(model, variant)
        run(mel)
        first = time.perf_counter() - began
        for _ in range(3):
            run(mel)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "first_call_s": first,
        "resident_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def turns(size: str, variant: str, rounds: int) -> dict[str, float]:
    """Medians (s) of eager and the variant in turns, and the ratio; CPU time too, which waiting is no part of."""
    import torch

    with torch.no_grad():
        model, mel = build(size)
        runs = {"eager": model, variant: as_variant(model, variant)}
        wall: dict[str, list[float]] = {name: [] for name in runs}
        cpu: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds + 2):
            for name, run in runs.items():
                began = time.perf_counter(), time.process_time()
                run(mel)
                if number >= 2:
                    wall[name].append(time.perf_counter() - began[0])
                    cpu[name].append(time.process_time() - began[1])
    medians = {name: statistics.median(times) for name, times in wall.items()}
    cpu_medians = {name: statistics.median(times) for name, times in cpu.items()}
    return {
        "eager_s": medians["eager"],
        "call_s": medians[variant],
        "ratio": medians[variant] / medians["eager"],
        "cpu_ratio": cpu_medians[variant] / cpu_medians["eager"],
        "rounds": rounds,
    }


def in_fresh_process(*args: object) -> dict[str, float]:
    command = [sys.executable, __file__, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "VARIANT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        what, variant = args.one
        work = (
            footprint(args.size, variant) if what == "footprint" else turns(args.size, variant, args.rounds)
        )
        print(json.dumps(work))
        return

    load = os.getloadavg()[0]  # before the benchmark adds its own
    results = {}
    for variant in args.variants.split(","):
        common = ("--size", args.size, "--rounds", args.rounds, "--one")
        results[variant] = in_fresh_process(*common, "footprint", variant)
        if variant != "eager":
            results[variant] |= in_fresh_process(*common, "turns", variant)
        print(variant, results[variant], flush=True)
    write(args.size, results, load)


def write(size: str, results: dict[str, dict[str, float]], load: float) -> None:
    import torch

    about = {
        "size": size,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "load_before": load,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"encoder-{size}.json").write_text(
        json.dumps({"about": about, "results": results}, indent=1) + "\n"
    )
    memory = results.get("eager", {}).get("resident_mb")
    lines = [
        f"Whisper {size} encoder, context 1500, batch 1, random weights, CPU only ({about['capability']}, "
        f"{about['cpus']} CPUs, torch {about['torch']}, {about['date']}).",
        f"Other processes' load before the run: {load:.1f} on {about['cpus']} CPUs. No NPU is involved.",
        "",
        "| variant | call / eager | CPU time / eager | first call (s) | resident (MB) | resident / eager |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, r in results.items():
        ratios = [f"{r[key]:.2f}" if key in r else "1" for key in ("ratio", "cpu_ratio")]
        relative = f"{r['resident_mb'] / memory:.2f}" if memory else ""
        cells = [name, *ratios, f"{r['first_call_s']:.1f}", f"{r['resident_mb']:.0f}", relative]
        lines.append(f"| {' | '.join(cells)} |")
    (RESULTS / f"encoder-{size}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
