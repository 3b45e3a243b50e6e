"""`torch-xdna disasm`: an instruction stream or a model's program in readable form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from torch_xdna.cli import output
from torch_xdna.errors import XdnaError

if TYPE_CHECKING:
    from torch_xdna.lowering.ops import Region


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--model", help="A Whisper model: a folder with config.json, or a Hugging Face name.")
@click.option("--config", "size", help="A Whisper size by name (tiny, base, small, ...): no files needed.")
@click.option("--columns", type=click.Choice(["1", "2", "4"]), default="4", show_default=True)
@click.option("--summary", is_flag=True, help="Sizes and one line per step only.")
@click.option("--in-order", is_flag=True, help="Commands as the controller executes them, not by step.")
@click.option("--step", type=click.IntRange(min=0), help="Only this step.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the words here (.0, .1, ... for several dispatches).",
)
def command(
    file: Path | None,
    model: str | None,
    size: str | None,
    columns: str,
    summary: bool,
    in_order: bool,
    step: int | None,
    save: Path | None,
) -> None:
    """Print the program of FILE (instruction words), of --model or of --config."""
    if (file is not None) + (model is not None) + (size is not None) != 1:
        raise XdnaError("disasm: give one of FILE, --model or --config")
    if file is not None:
        click.echo(_listing_of(file))
        return
    from torch_xdna import lowering
    from torch_xdna.lowering import listing

    program = lowering.lower(_region(model, size), columns=int(columns))
    if step is not None and step >= len(program.steps):
        raise XdnaError(f"disasm: there is no step {step}, the program has {len(program.steps)} (from 0)")
    if save is not None:
        for number, words in enumerate(program.dispatches):  # one, but for the largest models
            file_of = save if len(program.dispatches) == 1 else save.with_name(f"{save.name}.{number}")
            output.write(file_of, words.astype("<u4").tobytes())
    click.echo(listing.summary(program))
    if summary:
        return
    click.echo()
    wanted = step is None
    for line in listing.in_order(program) if in_order else listing.by_step(program):
        if step is not None and line.startswith(("step ", "; step ")):
            wanted = line.removeprefix("; ").split()[1].rstrip(":") == str(step)
        if wanted:
            click.echo(line)


def _listing_of(file: Path) -> str:
    import numpy as np

    from torch_xdna.lowering.commands.decode import DecodeError, decode, device_columns, listing

    try:
        data = file.read_bytes()
    except OSError as error:
        raise XdnaError(f"disasm: {file} can't be read: {error.strerror}; make it readable") from error
    if len(data) % 4:
        raise XdnaError(f"disasm: {file} has {len(data)} bytes, no whole number of 32-bit words")
    words = np.frombuffer(data, "<u4")
    try:
        commands = decode(words)
    except DecodeError as error:
        raise XdnaError(f"disasm: {file} is no instruction stream of this NPU: {error}") from error
    heading = f"{len(data):,} bytes, {len(commands):,} commands, {device_columns(words)} columns"
    return f"{heading}\n{listing(commands)}"


def _region(model: str | None, size: str | None) -> Region:
    """The encoder of a model's configuration. No weights are read."""
    from torch_xdna import model_config as configuration
    from torch_xdna.lowering.whisper import encoder_config, encoder_region

    try:
        if size is not None:
            return encoder_region(encoder_config(size))
        config = configuration.read(str(model))
        return encoder_region(encoder_config(config), config.get("max_source_positions", 1500))
    except ValueError as error:
        raise XdnaError(f"disasm: {error}") from error
