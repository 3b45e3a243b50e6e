"""`torch-xdna selftest`: every op on the NPU, compared and measured, in one file for a bug report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torch_xdna.cli import output
from torch_xdna.selftest import run


@click.command("selftest")
@click.option("--output", "file", type=click.Path(path_type=Path, dir_okay=False), default="torch-xdna-selftest.json",
              show_default=True, help="The file to attach to a bug report.")  # fmt: skip
@click.option("--quick", is_flag=True, help="Small shapes only.")
@click.option(
    "--columns", type=click.Choice(["1", "2", "4"]), default="4", help="Columns of the array to use."
)
@click.option("--overlay", type=click.Path(), default=None, help="An overlay (xclbin) of your own.")
@click.option(
    "--repeats", type=click.IntRange(1), default=20, show_default=True, help="Runs per measurement."
)
def command(file: Path, quick: bool, columns: str, overlay: str | None, repeats: int) -> None:
    """Climb from the smallest program to an encoder on the NPU, compare, measure.

    The file is written after every rung: what was found survives a later crash.

    The exit code is 0 if every case agrees, 1 if not, 2 if there is no usable NPU.
    """
    output.check(file)
    console = Console(stderr=True)
    with console.status("opening the NPU") as status:
        report = run(
            overlay=overlay, columns=int(columns), quick=quick, repeats=repeats,
            progress=lambda name: status.update(f"running: {name}"),
            record=lambda report: output.write(file, (json.dumps(report, indent=2) + "\n").encode()),
        )  # fmt: skip
    show(report, Console())
    click.echo(f"written to {file}")
    raise SystemExit(0 if report["passed"] else 1)


def show_rungs(rungs: list[dict[str, Any]], console: Console) -> None:
    """How many rungs passed, and every other one with why and what next."""
    passed = sum(rung["status"] == "passed" for rung in rungs)
    console.print(f"{passed} of {len(rungs)} rungs passed", highlight=False)
    for rung in rungs:
        if rung["status"] == "passed":
            continue
        why = rung.get("error") or rung.get("reason") or "a wrong result"
        console.print(f"[red]{escape(rung['name'])}[/] {rung['status']}: {escape(why)}", highlight=False)
        for title in ("causes", "next"):
            if rung.get(title):
                heading = {"causes": "likely", "next": "try"}[title]
                console.print(f"    {heading}: {escape('; or '.join(rung[title]))}", highlight=False)


def show(report: dict[str, Any], console: Console) -> None:
    """The report for people. Modelled times are labelled as such."""
    show_rungs(report["rungs"], console)
    clock = report["modelled_at"]
    table = Table(title=f"Self-test, overlay {report['overlay']}")
    for title in (
        "case",
        "shape",
        "agrees",
        "rel. error",
        "measured ms",
        f"modelled ms at {clock['clock_ghz']:g} GHz",
    ):
        table.add_column(title, justify="left" if title in ("case", "shape") else "right")
    for case in report["cases"]:
        if "error" in case:
            table.add_row(case["name"], case["shape"], "[red]failed[/]", escape(case["error"]))
            continue
        agrees = "yes" if case["passed"] else "[red]no[/]"
        times = (f"{1e3 * case[key]:.3f}" for key in ("device_s", "modelled_s"))
        table.add_row(case["name"], case["shape"], agrees, f"{case['relative_l2']:.1e}", *times)
    console.print(table)
    for measured in ("dispatch", "bandwidth", "sync"):
        if "error" in report[measured]:
            console.print(f"[red]{measured}[/]: {escape(report[measured]['error'])}", highlight=False)
            return
    latency, bandwidth = report["dispatch"], report["bandwidth"]["bytes_per_s"]
    rate = f"{bandwidth / 1e9:.1f} GB/s" if bandwidth else "too fast to tell"
    console.print(
        f"dispatch {1e6 * latency['median_s']:.0f} us (least {1e6 * latency['least_s']:.0f}, pipelined "
        f"{1e6 * latency['pipelined_s']:.0f}); bandwidth of add {rate}",
        highlight=False,
    )
    sync = report["sync"]
    console.print(
        f"sync {1e3 * sync['s_per_mb']:.2f} ms of CPU per MB ({sync['by']}; by XRT "
        f"{1e3 * sync['xrt_s_per_mb']:.2f})",
        highlight=False,
    )
