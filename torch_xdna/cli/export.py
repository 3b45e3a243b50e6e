"""`torch-xdna export MODEL -o FILE`: an encoder as one file that runs without torch."""

from __future__ import annotations

from pathlib import Path

import click

from torch_xdna.cli import output


@click.command()
@click.argument("model")
@click.option("-o", "--output", "path", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--columns", type=click.Choice(["1", "2", "4"]), default="4", show_default=True)
@click.option(
    "--context",
    "contexts",
    type=click.IntRange(min=1),
    multiple=True,
    help="Encoder frames of a length that is wanted; may be repeated.  [default: the model's own, 1500: 30 s]",
)
def command(model: str, path: Path, columns: str, contexts: tuple[int, ...]) -> None:
    """Write a Whisper encoder (Hugging Face id or folder, or a folder in CTranslate2's format) into one file, which
    `torch_xdna.load(FILE, device="npu")` runs with numpy alone.
    """
    from torch_xdna.exported.write import export

    output.check(path)
    export(model, path, int(columns), contexts or None)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
