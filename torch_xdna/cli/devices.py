"""`torch-xdna devices`: which devices there are, and whether each is usable here."""

from __future__ import annotations

import json
import warnings

import click
from rich.console import Console
from rich.table import Table

from torch_xdna.devices import describe, names, select, unusable


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """List the devices, whether each is usable here, and which one `auto` takes."""
    reasons = {name: unusable(name) for name in names() if name != "auto"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reason is in the table
        chosen = select("auto").name
    if as_json:
        devices = [
            {"name": n, "usable": r is None, "reason": r, "is": describe(n)} for n, r in reasons.items()
        ]
        click.echo(json.dumps({"auto": chosen, "devices": devices}))
        return
    table = Table()
    for column in ("device", "usable", "what it is", "why not, or how"):
        table.add_column(column, overflow="fold")
    notes = {name: reason or "" for name, reason in reasons.items()}
    if reasons["emulator"] is None:
        notes["emulator"] = _products()
    for name, reason in reasons.items():
        shown = f"{name} (auto)" if name == chosen else name
        table.add_row(shown, "yes" if reason is None else "no", describe(name), notes[name])
    Console().print(table)


def _products() -> str:
    from torch_xdna.devices.emulator import native_bf16  # brings torch

    if native_bf16.chosen():
        return f"products in bf16 ({native_bf16.instructions() or 'emulated by oneDNN'})"
    return "products in fp32 (TORCH_XDNA_EMULATOR)" if native_bf16.instructions() else "products in fp32"
