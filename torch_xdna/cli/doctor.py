"""`torch-xdna doctor`: hardware, driver, XRT, overlay; what is missing and what to do about it."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console
from rich.markup import escape

from torch_xdna.doctor import Check, diagnose, usable

# As `torch_xdna.dump.REMEDY`; that module needs torch, which not every machine has that asks.
REMEDY = (
    "set TORCH_XDNA_DUMP=FOLDER, run again, and attach the folder to a bug report "
    "(it holds no weights and no inputs)"
)
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "dim"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.option("--columns", type=click.Choice(["1", "2", "4"]), default="4", help="Which overlay is meant.")
@click.option("--overlay", type=click.Path(), default=None, help="An overlay (xclbin) of your own.")
def command(as_json: bool, columns: str, overlay: str | None) -> None:
    """Check hardware, driver and XRT, with a remedy for what is missing.

    The exit code is 0 if the NPU can be used, 1 if not.
    """
    checks = diagnose(columns=int(columns), overlay=overlay)
    if as_json:
        found = {"usable": usable(checks), "checks": [dataclasses.asdict(c) for c in checks]}
        click.echo(json.dumps(found, indent=2))
    else:
        _show(checks)
    raise SystemExit(0 if usable(checks) else 1)


def _show(checks: list[Check]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for check in checks:
        status = f"[{_STYLES[check.status]}]{check.status:8}[/]"
        console.print(f"{status} {check.name:17} {escape(check.says)}")
        if check.remedy:
            console.print(f"{'':26} -> {escape(check.remedy)}")
    if usable(checks):
        console.print("\nThe NPU is usable: `torch-xdna selftest` runs every op on it.")
    else:
        first = next(c for c in checks if c.status not in ("ok", "warning"))
        console.print(f"\nThe NPU is not usable yet; start with: {first.name}.")
    console.print(f"Is something else wrong? {REMEDY[0].upper()}{REMEDY[1:]}.")
