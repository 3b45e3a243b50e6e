"""The table of one size and the picture of all sizes, from what benchmarks/encoder.py measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from busy import remark

HEAD = (
    "variant", "precision", "call (ms)", "quartiles", "call / eager", "CPU time / eager", "compile (s)",
    "first call (s)", "resident (MB)", "peak (MB)", "relative error", "max abs error",
)  # fmt: skip
PANELS = (
    ("call_s", 1e3, "ms per call", "linear"),
    ("first_call_s", 1.0, "first call, s", "log"),
    ("resident_mb", 1.0, "resident, MB", "linear"),
)
COLOURS = {"tiny": "#66ccee", "base": "#4477aa", "small": "#aa3377"}


def table(record: dict[str, Any]) -> str:
    """Markdown of one run."""
    about, results = record["about"], record["results"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"# Whisper {about['size']}'s encoder, measured on a CPU",
        "",
        f"{about['cpu']} ({about['capability']}), {about['cpus']} CPUs, {about['threads']} threads each, "
        f"{about['date']}. {versions}. Context 1500, batch 1, random weights. No NPU is involved. "
        f"{remark(about['others_cpus'], 'meanwhile')} "
        f"Regenerate with `python benchmarks/encoder.py --size {about['size']}`.",
        "",
        _row(HEAD),
        _row(["---"] * len(HEAD)),
    ]
    lines += [_row(_cells(name, r)) for name, r in results.items() if "failed" not in r]
    if failed := {name: r["failed"] for name, r in results.items() if "failed" in r}:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {why}" for name, why in failed.items()]
    lines += ["", "What the variants are:", ""]
    lines += [f"- {name}: {r['what']}{_conversion(r)}" for name, r in results.items()]
    lines += [
        "",
        f"call: median of {about['rounds']} rounds; every variant has its own process, all take turns, and the ratios "
        "are medians of those within a round. first call: model at hand (converted ones: to be loaded) until the "
        "first result. compile: first call less one call, so tracing, compiling, packing, loading. resident, peak: of "
        "that process, the converted models' without torch in it. Errors: against the same model in float64; "
        "relative: norm of the difference by norm of the output. Random weights say that the same thing is computed, "
        "not how well a trained model would hear.",
    ]
    return "\n".join(lines) + "\n"


def picture(folder: Path) -> None:
    """encoder.svg of every encoder-SIZE.json in the folder: a panel per quantity, bars per variant and size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {size: folder / f"encoder-{size}.json" for size in COLOURS}
    records = {size: json.loads(path.read_text()) for size, path in found.items() if path.exists()}
    results = {
        size: {n: r for n, r in rec["results"].items() if "resident_mb" in r} for size, rec in records.items()
    }
    names = list(dict.fromkeys(name for result in results.values() for name in result))
    if not names:
        return
    height = 0.8 / len(results)
    figure, panels = plt.subplots(
        1, 3, figsize=(12, 1.4 + 0.14 * len(names) * (1 + len(results))), layout="constrained", sharey=True
    )
    for axes, (key, scale, label, kind) in zip(panels, PANELS):
        axes.set_xscale(kind)
        for index, (size, result) in enumerate(results.items()):
            places = [names.index(name) - 0.4 + (index + 0.5) * height for name in result]
            bars = axes.barh(
                places, [r[key] * scale for r in result.values()], height, label=size, color=COLOURS[size]
            )
            axes.bar_label(bars, fmt=lambda v: f"{v:.3g}" if v < 1000 else f"{v:.0f}", fontsize=7, padding=2)
        axes.set_xlabel(label)
        axes.margins(x=0.15)
        if kind == "linear":
            axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    cpu = next(iter(records.values()))["about"]
    figure.suptitle(
        f"Whisper encoders measured on {cpu['threads']} cores of {cpu['cpu']}: no NPU", fontsize=10
    )
    # A fixed salt and no date: the same numbers give the same file.
    with plt.rc_context({"svg.hashsalt": "torch-xdna", "svg.fonttype": "none"}):
        figure.savefig(folder / "encoder.svg", metadata={"Date": None})
    plt.close(figure)


def _cells(name: str, r: dict[str, Any]) -> list[str]:
    quartiles = r["call_quartiles_s"]
    return [
        name, r["precision"], f"{1e3 * r['call_s']:.0f}",
        f"{1e3 * quartiles[0]:.0f} to {1e3 * quartiles[1]:.0f}" if quartiles else "",
        *(f"{r[key]:.2f}" if key in r else "" for key in ("ratio", "cpu_ratio")),
        "" if name.startswith("eager") else f"{r['compile_s']:.1f}",
        f"{r['first_call_s']:.1f}", f"{r['resident_mb']:.0f}", f"{r['peak_mb']:.0f}",
        f"{r['relative_error']:.1e}", f"{r['max_abs_error']:.1e}",
    ]  # fmt: skip


def _conversion(r: dict[str, Any]) -> str:
    return f" (the conversion took {r['conversion_s']:.1f} s)" if "conversion_s" in r else ""


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
