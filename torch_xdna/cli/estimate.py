"""`torch-xdna estimate`: modelled time of a matrix product, an encoder or a transfer. Nothing runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from torch_xdna.errors import XdnaError
from torch_xdna.lowering.time import Estimate, estimate_encoder, estimate_gemm
from torch_xdna.lowering.time.encoder import EncoderEstimate
from torch_xdna.lowering.time.estimate import DISPATCH_S
from torch_xdna.lowering.time.transfers import estimate_memcpy, estimate_read
from torch_xdna.lowering.whisper import MODELS

_ORDER = click.Choice(["row-major", "packed"])
_clock = click.option(
    "--clock", "clock_ghz", type=click.FloatRange(min=0.1), default=1.03, show_default=True,
    help="Clock of the cores in GHz (real machines: 0.8, 1.03, 1.31, 1.6, 1.8).",
)  # fmt: skip
_dispatch = click.option(
    "--dispatch",
    default="single",
    show_default=True,
    help=f"{', '.join(DISPATCH_S)}, runlist, runlist:N or seconds.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def command() -> None:
    """Modelled time, for a stated clock; calibrated on published measurements of this NPU."""


@command.command()
@click.argument("m", type=click.IntRange(min=1))
@click.argument("k", type=click.IntRange(min=1))
@click.argument("n", type=click.IntRange(min=1))
@click.option("--tile", default="64,64,64", show_default=True, help="m,k,n of one core's tile.")
@click.option("--dtype", default="bf16", show_default=True,
              help="bf16, int8, int16 (assumed kernel), or input->output: bf16->bf16, int8->int32.")  # fmt: skip
@click.option(
    "--a", "a_order", type=click.Choice(["row-major", "packed"]), default="row-major", show_default=True
)
@click.option(
    "--b", "b_order", type=click.Choice(["row-major", "packed"]), default="row-major", show_default=True
)
@click.option("--cores", type=int, help="1-4, 8, 12 or 16 [default: 4 per column].")
@click.option("--columns", type=click.IntRange(1, 4), help="Columns of 4 cores [default: 4].")
@click.option(
    "--c-buffers", type=click.IntRange(1, 2), help="Buffers of C in a core [default: 2 where they fit]."
)
@_clock
@_dispatch
@_json
def gemm(
    m: int, k: int, n: int, tile: str, dtype: str, a_order: str, b_order: str, cores: int | None,
    columns: int | None, c_buffers: int | None, clock_ghz: float, dispatch: str, as_json: bool,
) -> None:  # fmt: skip
    """A whole-array matrix product M x K x N with the stock kernel, as mlir-aie and IRON lay it out."""
    sizes = _tile(tile)
    if cores is not None and columns is not None:
        raise XdnaError("gemm: --cores and --columns say the same twice; give one of them")
    cores = 4 * (columns or 4) if cores is None else cores
    estimate = _asked(
        lambda: estimate_gemm(
            m, k, n, tile=sizes, dtype=dtype, a_packed=a_order == "packed", b_packed=b_order == "packed",
            cores=cores, c_buffers=c_buffers, clock_ghz=clock_ghz, dispatch=dispatch,
        )
    )  # fmt: skip
    _show(estimate, f"gemm {m} x {k} x {n}, tile {tile}", as_json)


@command.command()
@click.argument("model")
@click.option(
    "--context", type=click.IntRange(min=1), default=1500, show_default=True, help="Encoder frames."
)
@click.option("--columns", type=click.Choice(["1", "2", "4"]), default="4", show_default=True)
@click.option("--precision", type=click.Choice(["bf16", "int8"]), default="bf16", show_default=True,
              help="bf16 is what the overlay computes; int8 is a what-if.")  # fmt: skip
@click.option("--better-gemm", is_flag=True, help="What-if: products at the best published single-core rate.")
@click.option(
    "--stock-kernels", is_flag=True, help="Kernels at the rates assumed before they were rewritten."
)
@_clock
@_json
def encoder(
    model: str,
    context: int,
    columns: str,
    precision: str,
    better_gemm: bool,
    stock_kernels: bool,
    clock_ghz: float,
    as_json: bool,
) -> None:
    """A Whisper encoder (tiny, base, small, ...) on our overlay, in one dispatch."""
    estimate = _asked(
        lambda: estimate_encoder(
            model, context=context, clock_ghz=clock_ghz, columns=int(columns), precision=precision,
            better_gemm=better_gemm, stock_kernels=stock_kernels,
        )
    )  # fmt: skip
    _show(estimate, f"encoder {model}, context {context}, {columns} columns, {precision}", as_json)


encoder.epilog = f"Models: {', '.join(MODELS)}."


@command.command()
@click.argument("nbytes", type=click.IntRange(min=1))
@click.option("--columns", type=click.IntRange(1, 4), default=4, show_default=True)
@click.option("--channels", type=click.IntRange(1, 2), default=1, show_default=True, help="Per column.")
@click.option(
    "--run", type=click.IntRange(min=4), help="Contiguous bytes per run of the reads [default: linear]."
)
@click.option("--read-only", is_flag=True, help="Memory to array only.")
@_clock
@_dispatch
@_json
def memcpy(
    nbytes: int, columns: int, channels: int, run: int | None, read_only: bool, clock_ghz: float,
    dispatch: str, as_json: bool,
) -> None:  # fmt: skip
    """NBYTES from memory through the array and back (or only in)."""

    def ask() -> Estimate:
        common: dict[str, Any] = {"clock_ghz": clock_ghz, "columns": columns, "channels": channels}
        transfer = estimate_read if read_only else estimate_memcpy
        return transfer(nbytes, run=run, dispatch=dispatch, **common)

    _show(_asked(ask), f"{'read' if read_only else 'memcpy'} of {nbytes} bytes", as_json)


def _tile(text: str) -> tuple[int, int, int]:
    parts = text.replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise XdnaError(f"--tile {text!r} is no tile; give m,k,n, for example 64,64,32")
    m, k, n = (int(part) for part in parts)
    return m, k, n


def _asked(ask: Callable[[], Estimate]) -> Estimate:
    try:
        return ask()
    except ValueError as error:
        raise XdnaError(str(error)) from error


def _show(estimate: Estimate, title: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(estimate.as_dict()))
        return
    console = Console()
    clock = estimate.inputs.get("clock_ghz")
    unit = "GOPS" if str(estimate.inputs.get("dtype", "")).startswith("int") else "GFLOPS"
    rate = f", {_significant(estimate.gops)} {unit}" if estimate.work else ""
    if isinstance(estimate, EncoderEstimate):
        rate += f", {estimate.real_time_factor:.0f} x real time"
    console.print(f"{title}: [bold]{_time(estimate.seconds)}[/bold]{rate}", highlight=False)
    console.print(f"modelled at {clock:g} GHz, not measured; bound by {estimate.bound}", highlight=False)
    if isinstance(estimate, EncoderEstimate):
        _table(console, "bound by", estimate.breakdown)
        _table(console, "kind of op", estimate.kinds)
        return
    _table(console, "part", estimate.breakdown)
    console.print(
        "parts overlap: the slowest counts, then what starts and ends it", style="dim", highlight=False
    )


def _table(console: Console, head: str, times: Mapping[str, float]) -> None:
    table = Table(head, "modelled", box=None)
    for name, seconds in times.items():
        table.add_row(name, _time(seconds))
    console.print(table)


def _significant(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"
