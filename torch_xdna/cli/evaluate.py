"""`torch-xdna evaluate MANIFEST`: word error rate, speed and CPU time on your own recordings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from torch_xdna.cli import output
from torch_xdna.errors import XdnaError

DEVICES = ("eager", "auto", "npu", "emulator", "array")
PRECISIONS = ("fp32", "bf16")
DECODERS = ("auto", "ctranslate2", "hf")
PICTURES = (".svg", ".png", ".pdf")


@click.command()
@click.argument("manifest", required=False, type=click.Path(path_type=Path))
@click.option("--model", help="As of transcribe.  [default: the shipped checkpoint]")
@click.option(
    "--language", help="What is spoken.  [default: detected; English decides how texts are compared]"
)
@click.option(
    "--device", "devices", type=click.Choice(DEVICES), multiple=True, default=("auto",), show_default=True
)
@click.option("--precision", "precisions", type=click.Choice(PRECISIONS), multiple=True, default=("bf16",),
              show_default=True, help="Of the encoder; eager alone computes in fp32.")  # fmt: skip
@click.option("--decoder", "decoders", type=click.Choice(DECODERS), multiple=True, default=("auto",),
              show_default=True)  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--vad/--no-vad", default=False, show_default=True, help="Windows by the voice detector.")
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, help="Medians are shown.")
@click.option(
    "--show", "most", type=click.IntRange(min=0), default=5, show_default=True, help="Texts that differ."
)
@click.option(
    "--json", "as_json", type=click.Path(dir_okay=False, path_type=Path), help="Write everything here."
)
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw it here (svg, png, pdf)."
)
def command(
    manifest: Path | None, model: str | None, language: str | None, devices: tuple[str, ...],
    precisions: tuple[str, ...], decoders: tuple[str, ...], batch_size: int, vad: bool, rounds: int, most: int,
    as_json: Path | None, picture: Path | None,
) -> None:  # fmt: skip
    """Word error rate (after Whisper's text normalisation), speed, CPU time and what differs, for every combination of
    the devices, precisions and decoders given; each may be given several times.

    MANIFEST: json, JSON lines, csv or tsv with a recording and its text per entry, or a folder of recordings with .txt
    files beside them. Without one, the 40 shipped clips.
    """
    from rich.console import Console

    from torch_xdna import speech
    from torch_xdna.evaluation import manifest as manifests
    from torch_xdna.evaluation import score, show
    from torch_xdna.evaluation.variant import Variant, evaluate, variants
    from torch_xdna.speech import voice

    for path in (as_json, picture):
        if path is not None:
            output.check(path)
    if picture is not None and picture.suffix not in PICTURES:
        raise XdnaError(f"--picture {picture} ends in none of {', '.join(PICTURES)}; name it so")
    if vad and (reason := voice.missing()):
        raise XdnaError(f"--vad can't be had, because {reason}; leave it out to find speech by loudness")
    chosen = variants(devices, precisions, decoders)
    entries = manifests.read(manifest) if manifest else [
        manifests.Entry(Path(clip.path), clip.text) for clip in speech.clips()
    ]  # fmt: skip
    english = language is None or language.strip().lower() in ("en", "english")
    normalize = score.normalizer("en" if english else "other")
    console = Console(stderr=True)

    def told(variant: Variant, number: int) -> None:
        console.print(f"{variant}: round {number + 1} of {rounds}", highlight=False)

    results = list(
        evaluate(
            chosen, model or speech.CHECKPOINT, [entry.audio for entry in entries], language=language,
            batch_size=batch_size, rounds=rounds, vad=vad, told=told,
        )
    )  # fmt: skip
    found = show.records(results, entries, normalize)
    Console().print(show.table(found))
    for line in show.differences(found, entries, most):
        click.echo(line)
    for sentence in dict.fromkeys(s for row in found for s in row["failures"]):
        click.echo(f"torch-xdna: {sentence}", err=True)
    if as_json is not None:
        output.write(as_json, (json.dumps(found, ensure_ascii=False, indent=1) + "\n").encode())
    if picture is not None:
        output.write(picture, show.draw(found, picture))
    if any(row["failures"] for row in found):
        sys.exit(2)
