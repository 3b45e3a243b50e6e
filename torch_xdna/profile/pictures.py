"""Pictures of a profile: timeline, roofline, scaling; and the trace for Chrome or Perfetto. All modelled."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torch_xdna.lowering.time.encoder import estimate_encoder
from torch_xdna.profile.model import PRODUCT_SHARE, READ_GBS, OpProfile, Profile

COLOURS = {
    "gemm": "#4477aa", "attention": "#ee6677", "layer_norm": "#228833", "conv": "#66ccee",
    "reorder": "#bbbbbb", "softmax": "#aa3377", "gelu": "#ccbb44", "add": "#777777",
}  # fmt: skip
CLOCKS = (0.8, 1.03, 1.31, 1.6, 1.8)  # seen on real machines
BINS = 600
WIDE = 0.035  # share of a timeline from which an op has room for its name


def write_all(profile: Profile, out: Path) -> list[Path]:
    """profile.json, roofline.svg, and from the simulator timeline.png and trace.json.gz. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "profile.json").write_text(json.dumps(profile.as_dict(), indent=1) + "\n")
    roofline(profile, out / "roofline.svg")
    written = [out / "profile.json", out / "roofline.svg"]
    if profile.trace:
        timeline(profile, out / "timeline.png")
        save_trace(profile, out / "trace.json.gz")
        written += [out / "timeline.png", out / "trace.json.gz"]
    return written


def timeline(profile: Profile, path: Path, window: tuple[float, float] | None = None) -> None:
    """Ops as coloured spans above the share of time that every core, shim channel and stream was busy.

    `window`: seconds to show, the whole program by default. Needs a profile by the simulator.
    """
    first, last = window or (0.0, profile.seconds)
    edges = np.linspace(first, last, BINS + 1)
    cores, others = _occupancy(profile, edges)
    plt = _pyplot()
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, sharex=True, figsize=(12, 7), height_ratios=[1, len(cores), len(others)], layout="constrained"
    )
    for op in profile.ops:
        if op.start < last and op.start + op.seconds > first:
            span = (1e3 * op.start, 1e3 * op.seconds)
            top.broken_barh(
                [span], (0, 1), facecolors=COLOURS.get(_kind(op), "#999999"), edgecolor="white", lw=0.3
            )
            if op.seconds > WIDE * (last - first):
                name = op.role.removeprefix("self_attn.")
                top.text(span[0] + span[1] / 2, 0.5, name, ha="center", va="center", fontsize=6, clip_on=True)
    top.set_yticks([])
    kinds = list(dict.fromkeys(_kind(op) for op in profile.ops))
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS.get(kind, "#999999")) for kind in kinds]
    top.legend(
        handles, kinds, ncols=len(kinds), loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8
    )
    for axes, tracks in ((middle, cores), (bottom, others)):
        image = axes.imshow(
            np.array(list(tracks.values())), aspect="auto", interpolation="nearest", cmap="viridis",
            vmin=0, vmax=1, extent=(1e3 * first, 1e3 * last, len(tracks), 0),
        )  # fmt: skip
        axes.set_yticks(np.arange(len(tracks)) + 0.5, list(tracks), fontsize=6)
    bottom.set_xlabel(_label("ms", profile))
    figure.colorbar(image, ax=(middle, bottom), label="busy", pad=0.01)
    figure.suptitle(f"{profile.name}: where the time goes, modelled, not measured", fontsize=10)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def roofline(profile: Profile, path: Path) -> None:
    """Every product over its operations per byte moved, under the roofs of array, product kernel and DDR."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    intensity = np.geomspace(4, 1000, 200)
    peak = profile.peak_gflops
    axes.loglog(intensity, np.minimum(peak, intensity * READ_GBS), color="black", lw=1)
    axes.text(intensity[-1], peak * 1.05, f"peak {peak:.0f} GFLOPS", ha="right", fontsize=8)
    axes.axhline(peak * PRODUCT_SHARE, color="black", lw=0.8, ls="--")
    axes.text(intensity[0], peak * PRODUCT_SHARE * 1.03, "product kernel, modelled", fontsize=8)
    axes.annotate(
        f"DDR reads {READ_GBS:g} GB/s", (10, 10 * READ_GBS), (8, -4), textcoords="offset points", fontsize=8
    )
    points: dict[tuple[float, float], list[str]] = {}
    colours = {}
    for role, ops in profile.by("role").items():
        seconds, moved, macs = (sum(getattr(op, key) for op in ops) for key in ("seconds", "bytes", "macs"))
        if macs and moved:
            point = 2 * macs / moved, 2e-9 * macs / seconds
            near = next((p for p in points if np.allclose(p, point, rtol=0.02)), point)
            points.setdefault(near, []).append(f"{role.removeprefix('self_attn.')} ({ops[0].bound})")
            colours[near] = COLOURS.get(_kind(ops[0]), "#999999")
    # Names stand beside the axes, highest first, so that they can't cover each other.
    for place, (x, y) in enumerate(sorted(points, key=lambda point: -point[1])):
        axes.plot(x, y, "o", ms=5, color=colours[x, y])
        axes.annotate(
            ", ".join(points[x, y]), (x, y), (1.02, 0.95 - 0.07 * place), textcoords="axes fraction", va="center",
            fontsize=7, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "relpos": (0, 0.5), "color": colours[x, y]},
        )  # fmt: skip
    axes.set_xlabel("operations per byte moved between DDR and the array")
    axes.set_ylabel("GFLOPS, useful products only")
    axes.set_title(_label(f"{profile.name}: roofline", profile), fontsize=9)
    _save(figure, path)


def scaling(
    models: Sequence[str], path: Path, contexts: Sequence[int] = (100, 200, 400, 750, 1000, 1500)
) -> None:
    """Encoder time over columns, clocks and context, by the closed form."""
    plt = _pyplot()
    figure, (columns, clocks, lengths) = plt.subplots(
        1, 3, figsize=(12, 4), layout="constrained", sharey=True
    )
    for model in models:
        counts = (1, 2, 4)
        columns.plot(counts, [_ms(model, columns=c) for c in counts], "o-", label=model)
        clocks.plot(CLOCKS, [_ms(model, clock_ghz=c) for c in CLOCKS], "o-", label=model)
        lengths.plot(contexts, [_ms(model, context=c) for c in contexts], "o-", label=model)
    columns.set_xlabel("columns (1.03 GHz, context 1500)")
    columns.set_xticks([1, 2, 4])
    clocks.set_xlabel("GHz (4 columns, context 1500)")
    lengths.set_xlabel("context (4 columns, 1.03 GHz)")
    columns.set_ylabel("ms per encoder pass, modelled")
    columns.set_yscale("log")
    columns.legend(fontsize=8)
    for axes in (columns, clocks, lengths):
        axes.grid(alpha=0.3)
    figure.suptitle("Whisper encoders on the NPU: modelled (closed form), not measured", fontsize=10)
    _save(figure, path)


def save_trace(profile: Profile, path: Path) -> None:
    """Every op, kernel call and transfer for chrome://tracing or ui.perfetto.dev (gzip, microseconds)."""
    events: list[dict[str, Any]] = [
        {
            "ph": "X",
            "pid": 0,
            "tid": 0,
            "name": op.name,
            "cat": op.kind,
            "ts": 1e6 * op.start,
            "dur": 1e6 * op.seconds,
        }
        for op in profile.ops
    ]
    names = {0: "ops"}
    tracks: dict[str, int] = {}
    scale = 1e-3 / profile.clock_ghz
    for begin, run in profile.trace:
        for track, name, start, end in run.spans:
            tid = tracks.setdefault(track, 1 + len(tracks))
            names[tid] = track
            ts, duration = 1e6 * begin + start * scale, (end - start) * scale
            events.append(
                {"ph": "X", "pid": 0, "tid": tid, "name": name, "ts": round(ts, 3), "dur": round(duration, 3)}
            )
    for tid, name in names.items():
        events.append({"ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": {"name": name}})
    about = {"time": f"modelled at {profile.clock_ghz:g} GHz, not measured"}
    with gzip.open(path, "wt", compresslevel=5) as file:
        json.dump({"traceEvents": events, "otherData": about}, file)


def _occupancy(profile: Profile, edges: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Per core and per other track the busy share of every bin."""
    width = edges[1] - edges[0]
    busy: dict[str, np.ndarray] = {}
    scale = 1e-9 / profile.clock_ghz
    for begin, run in profile.trace:
        spans: dict[str, list[tuple[float, float]]] = {}
        for track, _, start, end in run.spans:
            spans.setdefault(track, []).append((start, end))
        for track, found in spans.items():
            starts, ends = (begin + scale * np.array(found)).T  # in order, without overlap
            done = np.concatenate([[0.0], np.cumsum(ends - starts)])
            place = np.searchsorted(starts, edges, "right") - 1
            partly = np.clip(edges - starts[place], 0, (ends - starts)[place])
            before = np.where(place < 0, 0.0, done[np.maximum(place, 0)] + partly)
            busy[track] = busy.get(track, 0) + np.diff(before) / width
    ordered = dict(sorted(busy.items()))
    cores = {track: share for track, share in ordered.items() if track.startswith("core")}
    return cores, {track: share for track, share in ordered.items() if track not in cores}


def _kind(op: OpProfile) -> str:
    return "conv" if op.name.startswith("conv") else op.kind


def _ms(model: str, **asked: Any) -> float:
    return 1e3 * estimate_encoder(model, **{"clock_ghz": 1.03, **asked}).seconds


def _label(text: str, profile: Profile) -> str:
    return f"{text} (modelled at {profile.clock_ghz:g} GHz, {profile.columns} columns, {profile.source})"


def _save(figure: Any, path: Path) -> None:
    plt = _pyplot()
    # A fixed salt and no date: the same numbers give the same file.
    with plt.rc_context({"svg.hashsalt": "torch-xdna", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
