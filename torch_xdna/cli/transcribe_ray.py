"""`torch-xdna transcribe --ray`: a folder of recordings on a cluster, Parquet out; see torch_xdna.distributed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch_xdna.errors import XdnaError

if TYPE_CHECKING:
    from torch_xdna.distributed.job import Summary

_ADDRESS = re.compile(r"auto|ray://\S+|[\w.-]+:\d+|\[[\da-f:]+\]:\d+")
_SHOWN = 10  # errors in full; all of them are in the output


def run(
    ray: str,
    files: tuple[Path, ...],
    output: Path | None,
    **options: Any,
) -> None:
    """`ray`: what stood behind --ray, an address or, as it may be left out, the first of the files; `options`:
    as of torch_xdna.distributed.transcribe."""
    if ray and not _ADDRESS.fullmatch(ray):
        ray, files = "", (Path(ray), *files)
    if not files:
        raise click.UsageError("Missing argument 'FILES...'.")
    if output is None:
        raise XdnaError("--ray writes Parquet files: name a folder for them with --output")
    try:
        from torch_xdna.distributed.job import transcribe
    except ModuleNotFoundError as error:
        raise XdnaError(
            f"--ray needs '{error.name}', which is not installed: pip install '.[ray]' in the checkout"
        ) from error
    with _Progress() as progress:
        summary = transcribe(
            files,
            output=output,
            address=ray or None,
            finished=progress.finished,
            **options,
        )
    _tell(summary, output)
    if summary.errors:
        sys.exit(2)


def _tell(summary: Summary, output: Path) -> None:
    for sentence in list(summary.errors.values())[:_SHOWN]:
        click.echo(f"torch-xdna: {sentence}", err=True)
    if len(summary.errors) > _SHOWN:
        click.echo(f"torch-xdna: and {len(summary.errors) - _SHOWN} more, see the column 'error'", err=True)
    click.echo(
        f"{summary.found} recordings: {summary.transcribed} done now ({summary.seconds / 3600:.2f} h), "
        f"{summary.done_before} before, {len(summary.errors)} with errors; in {output}"
    )


class _Progress:
    """A line on a terminal's stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("starting")
        self._count, self._seconds = 0, 0.0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def finished(self, row: dict[str, Any]) -> None:
        self._count, self._seconds = self._count + 1, self._seconds + row["duration"]
        self._bar.update(self._task, description=f"{self._count} recordings, {self._seconds / 3600:.2f} h")
