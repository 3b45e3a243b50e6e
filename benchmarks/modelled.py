"""All modelled tables and pictures of benchmarks/results, by one command: `python benchmarks/modelled.py
[--quick]`.

Modelled: nothing here ran on an NPU. `--quick` leaves the array simulator out (about two minutes) and keeps
the closed form, which agrees with it within a few per cent. Published times are those of their authors'
machines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from modelled_ideas import ideas

from torch_xdna.lowering.time import Costs, calibrate, estimate_encoder
from torch_xdna.lowering.time.__main__ import render
from torch_xdna.lowering.time.estimate import dispatch_seconds
from torch_xdna.lowering.whisper import MODELS, encoder_config, encoder_region
from torch_xdna.profile import Profile, profile_model
from torch_xdna.profile.pictures import roofline, scaling, timeline
from torch_xdna.profile.simulated import simulated_seconds

RESULTS = Path(__file__).resolve().parent / "results"
CLOCKS = (1.03, 1.6)
SIMULATED = ("tiny", "base", "small")
TARGETS = {
    "tiny": (30, 19.5), "base": (56, 36), "small": (190, 123), "medium": (560, 365), "large-v3": (1050, 680),
    "large-v3-turbo": (1050, 680),
}  # fmt: skip
"""ms at the two clocks."""
# whisper-xdna's own encoder times on this NPU, ms at context 1500; its clock is not stated.
PUBLISHED = {"tiny": 484, "small": 1507, "large-v3-turbo": 3346, "large-v3": 3990}
PUBLISHED_100 = {"base": 1167}  # the same at 100 frames
CONTEXTS = (100, 200, 400, 750, 1000, 1500)
PEAK_FLOP = 4096  # bf16 operations per cycle of 16 cores
READ_GBS = 47.62
NOTE = "Modelled, not measured: nobody here has an NPU."


def main(arguments: Sequence[str]) -> int:
    quick = "--quick" in arguments
    RESULTS.mkdir(exist_ok=True)
    cases = [] if quick else [(model, clock) for model in SIMULATED for clock in CLOCKS]
    with ProcessPoolExecutor() as pool:
        simulated = dict(zip(cases, pool.map(simulate, cases)))
    write("modelled_calibration.md", "# The model against published measurements", [render(markdown=True)])
    write("modelled_encoders.md", "# Whisper encoders on the NPU, modelled", encoders(simulated))
    write("modelled_scaling.md", "# Scaling of the modelled encoder time", scales())
    write("modelled_ideas.md", "# What was tried on the model, and what it gave", ideas())
    scaling(("tiny", "base", "small"), RESULTS / "modelled_scaling.svg")
    base = profile_model("base", clock_ghz=CLOCKS[0], simulate=not quick)
    roofline(base, RESULTS / "modelled_roofline_base.svg")
    if base.trace:
        timeline(base, RESULTS / "modelled_timeline_base.png")
        layer = [op for op in base.ops if op.layer == "layer 2"]
        window = (layer[0].start, layer[-1].start + layer[-1].seconds)
        timeline(base, RESULTS / "modelled_timeline_base_layer.png", window)
        write("modelled_profile_base.md", "# Where base's time goes, modelled", profile_table(base))
    return 0


def write(name: str, title: str, parts: Iterable[str]) -> None:
    command = "`python benchmarks/modelled.py`"
    text = "\n\n".join([title, f"{NOTE} Regenerate with {command}.", *parts])
    (RESULTS / name).write_text(text + "\n")


def simulate(case: tuple[str, float]) -> float:
    """Seconds of an encoder pass by the array simulator, its dispatch included."""
    model, clock = case
    region = encoder_region(encoder_config(model))
    return dispatch_seconds("stream") + simulated_seconds(region, 4, Costs(clock))


def encoders(simulated: dict[tuple[str, float], float]) -> list[str]:
    """Ours against published encoders, the targets and the limits."""
    head = (
        "model", "GHz", "modelled ms", "x real time", "array simulator ms", "target ms",
        "best published kernel ms", "int8 what-if ms", "compute peak ms", "weights read once ms",
        "published ms", "published / modelled", "before, ms",
    )  # fmt: skip
    lines = []
    for model in MODELS:
        for index, clock in enumerate(CLOCKS):
            found = estimate_encoder(model, clock_ghz=clock)
            better = estimate_encoder(model, clock_ghz=clock, better_gemm=True)
            before = estimate_encoder(model, clock_ghz=clock, stock_kernels=True)
            int8 = estimate_encoder(model, clock_ghz=clock, precision="int8")
            published = PUBLISHED.get(model)
            lines.append((
                model, f"{clock:g}", ms(found.seconds), f"{found.real_time_factor:.0f}",
                ms(simulated[model, clock]) if (model, clock) in simulated else "", TARGETS.get(model, ("", ""))[index],
                ms(better.seconds), ms(int8.seconds), ms(found.work / (PEAK_FLOP * clock * 1e9)),
                ms(weight_bytes(model) / READ_GBS / 1e9), published or "",
                f"{published / found.seconds / 1e3:.1f}" if published else "", ms(before.seconds),
            ))  # fmt: skip
    middle, worst = calibrate.summary(calibrate.table())
    short = [estimate_encoder("base", context=100, clock_ghz=clock) for clock in CLOCKS]
    layers = [sum(op.seconds for op in found.ops if op.name.startswith("layers.0.")) for found in short]
    return [
        "Context 1500 (30 s of audio), bf16, 4 columns, one dispatch, whose 0.25 ms every time includes. before: "
        "the kernels of before at the rates assumed then (the stock GEMM kernel's, 48 of 128 MAC per cycle).",
        markdown(head, lines),
        "Published: whisper-xdna's encoder on this NPU; its clock is not stated. For 100 frames of base it "
        f"reports {PUBLISHED_100['base']} ms and 173 ms per layer; modelled here {ms(short[0].seconds)} ms and "
        f"{ms(layers[0])} ms per layer at {CLOCKS[0]:g} GHz, {ms(short[1].seconds)} and {ms(layers[1])} at "
        f"{CLOCKS[1]:g} GHz (target 8.5 ms per layer).",
        f"The model's errors on the published whole-array products: median {middle:.1%}, worst {worst:.1%} "
        "(modelled_calibration.md). Our kernels were never measured: their loops are scheduled for the "
        "core's slots and registers, with what a compiler lost on traced loops of others "
        "(`python -m torch_xdna.kernels_xdna1`).",
    ]


def scales() -> list[str]:
    """Context, columns, clocks, models."""
    parts = ["Closed form, ms per encoder pass. The pictures show the same numbers (modelled_scaling.svg)."]
    models = ("tiny", "base", "small", "medium", "large-v3")
    clocks = (0.8, 1.03, 1.31, 1.6, 1.8)
    asked = {
        "Context, 4 columns, 1.03 GHz:": [{"context": c} for c in CONTEXTS],
        "Columns, context 1500, 1.03 GHz:": [{"columns": c} for c in (1, 2, 4)],
        "GHz, context 1500, 4 columns:": [{"clock_ghz": c} for c in clocks],
    }
    for title, cases in asked.items():
        head = ("model", *(str(value) for case in cases for value in case.values()))
        rows = [(m, *(ms(_seconds(m, **case)) for case in cases)) for m in models]
        parts += [title, markdown(head, rows)]
    return parts


def _seconds(model: str, **asked: Any) -> float:
    return estimate_encoder(model, **{"clock_ghz": 1.03, **asked}).seconds


def profile_table(profile: Profile) -> list[str]:
    """One line per op of a layer, as `torch-xdna profile base` prints it."""
    rows = []
    for role, ops in profile.by("role").items():
        seconds = sum(op.seconds for op in ops)
        busy = sum(op.busy or 0 for op in ops) / len(ops)
        share = f"{seconds / profile.seconds:.1%}"
        macs, moved = sum(op.macs for op in ops), sum(op.bytes for op in ops)
        peak = f"{2 * macs / (PEAK_FLOP * profile.clock_ghz * 1e9) / seconds:.0%}"
        floor = f"{moved / READ_GBS / 1e9 / seconds:.0%}"
        rows.append((role, len(ops), ms(seconds), share, f"{busy:.0%}", ops[0].bound, peak, floor))
    where = f"{profile.clock_ghz:g} GHz on {profile.columns} columns"
    total = f"{ms(profile.seconds)} ms at {where}, {profile.source}:"
    return [
        total,
        markdown(
            ("op", "calls", "ms", "share", "cores busy", "bound", "of compute peak", "of DDR floor"), rows
        ),
    ]


def weight_bytes(model: str) -> int:
    """bf16 weights of the encoder without its position embedding."""
    params = encoder_region(encoder_config(model)).params
    sizes = (shape[0] * (shape[1] if len(shape) > 1 else 1) * (shape[2] if len(shape) > 2 else 1)
             for shape in (p.shape for p in params if "embed_positions" not in p.name))  # fmt: skip
    return 2 * sum(sizes)


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds >= 0.01 else f"{seconds * 1e3:.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
