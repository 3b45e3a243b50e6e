"""`torch-xdna profile`: what takes an encoder's time on the NPU, and why. Modelled; needs no NPU."""

from __future__ import annotations

import json
from pathlib import Path

import click

from torch_xdna.errors import XdnaError


@click.command()
@click.argument("model")
@click.option(
    "--context", type=click.IntRange(min=1), default=1500, show_default=True, help="Encoder frames."
)
@click.option(
    "--clock", "clock_ghz", type=click.FloatRange(min=0.1), default=1.03, show_default=True, help="GHz."
)
@click.option("--columns", type=click.Choice(["1", "2", "4"]), default="4", show_default=True)
@click.option("--device", help="Measure on this device of this machine as well: emulator, npu.")
@click.option("--closed-form", is_flag=True, help="The closed form instead of the array simulator (quick).")
@click.option("--ops", "every_op", is_flag=True, help="One line per op, not one for all layers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Write JSON, pictures and a trace here."
)
def command(
    model: str, context: int, clock_ghz: float, columns: str, device: str | None, closed_form: bool,
    every_op: bool, as_json: bool, out: Path | None,
) -> None:  # fmt: skip
    """Modelled time per layer and op of a Whisper encoder on the NPU, and what bounds each.

    MODEL is a size (tiny, base, small, medium, large-v3, large-v3-turbo) or a directory with a config.json.
    """
    from torch_xdna.profile import profile_model

    profile = profile_model(
        model,
        context=context,
        clock_ghz=clock_ghz,
        columns=int(columns),
        device=device,
        simulate=not closed_form,
    )
    if out is not None:
        from torch_xdna.profile.pictures import write_all

        try:
            written = write_all(profile, out)
        except OSError as error:
            raise XdnaError(f"{out} can't be written: {error}") from error
        for path in written:
            click.echo(str(path), err=True)
    if as_json:
        click.echo(json.dumps(profile.as_dict()))
        return
    from rich.console import Console

    from torch_xdna.profile.terminal import show

    console = Console()
    show(
        profile,
        Console(width=max(console.width, 150 if every_op else 120)) if not console.is_terminal else console,
        every_op,
    )
