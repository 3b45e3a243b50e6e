"""What an evaluation found, as a table for people, JSON for programs and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch_xdna.evaluation.manifest import Entry
from torch_xdna.evaluation.score import errors
from torch_xdna.evaluation.variant import STAGES, Result


def records(
    results: Sequence[Result], entries: Sequence[Entry], normalize: Callable[[str], str]
) -> list[dict[str, Any]]:
    """One per variant, everything in it measured in this run; the texts are as they were written."""
    references = [normalize(entry.text) for entry in entries]
    first = [normalize(text or "") for text in results[0].texts] if results else []
    found = []
    for result in results:
        texts = [normalize(text or "") for text in result.texts]
        counted = errors(references, texts)
        differ = [i for i, (a, b) in enumerate(zip(first, texts)) if a != b]
        found.append(
            {
                **asdict(result.variant),
                "decoder_taken": result.decoder,
                "recordings": len(entries),
                "audio_seconds": round(result.audio_seconds, 3),
                "word_error_rate": counted.rate,
                **asdict(counted),
                "rtfx": result.rtfx,
                "cpu_seconds_per_hour": result.cpu_per_hour,
                "seconds": result.seconds,
                "stage_shares": result.shares,
                "differ_from_first": differ,
                "failures": result.failures,
                "texts": result.texts,
            }
        )
    return found


def table(found: Sequence[dict[str, Any]]) -> Any:
    """A rich table."""
    from rich.table import Table

    title = (
        f"measured here: {found[0]['recordings']} recordings, {found[0]['audio_seconds']:.0f} s of sound; shares of "
        f"the stages' time: {', '.join(STAGES)}"
    )
    made = Table(title=title, title_justify="left")
    made.add_column("encoder, decoder")
    for name in ("WER", "RTFx", "CPU s/h", "shares, %", "differ", "failed"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in found:
        made.add_row(
            f"{row['device']} {row['precision']}, {row['decoder_taken']}",
            f"{100 * row['word_error_rate']:.2f} %",
            f"{row['rtfx']:.1f}",
            f"{row['cpu_seconds_per_hour']:.0f}",
            " ".join(f"{100 * row['stage_shares'][stage]:.0f}" for stage in STAGES),
            str(len(row["differ_from_first"])),
            str(len(row["failures"])),
        )
    return made


def differences(found: Sequence[dict[str, Any]], entries: Sequence[Entry], most: int) -> list[str]:
    """Lines that show the texts that are not the first variant's, `most` of each."""
    lines = []
    for row in found[1:]:
        for i in row["differ_from_first"][:most]:
            lines.append(f"{entries[i].audio.name}")
            for one in (found[0], row):
                name = f"{one['device']} {one['precision']} {one['decoder_taken']}"
                lines.append(f"  {name}: {one['texts'][i] if one['texts'][i] is not None else '(failed)'}")
    return lines


def draw(found: Sequence[dict[str, Any]], path: Path) -> bytes:
    """Word error rate, speed and the stages' shares, a bar per variant; the format is the file's ending."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [f"{row['device']} {row['precision']}\n{row['decoder_taken']}" for row in found]
    figure, axes = plt.subplots(1, 3, figsize=(12, 1.6 + 0.5 * len(found)), sharey=True, layout="constrained")
    axes[0].barh(names, [100 * row["word_error_rate"] for row in found])
    axes[0].set_xlabel("word errors, %")
    axes[1].barh(names, [row["rtfx"] for row in found])
    axes[1].set_xlabel("times real time, measured")
    left = [0.0] * len(found)
    for stage in STAGES:
        shares = [100 * row["stage_shares"][stage] for row in found]
        axes[2].barh(names, shares, left=left, label=stage)
        left = [a + b for a, b in zip(left, shares)]
    axes[2].set_xlabel("share of the stages' time, %")
    axes[2].legend(fontsize=7)
    axes[0].invert_yaxis()
    out = io.BytesIO()
    try:
        figure.savefig(out, format=path.suffix.lstrip(".") or "svg")
    finally:
        plt.close(figure)
    return out.getvalue()
