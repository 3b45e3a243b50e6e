"""`torch-xdna build-overlay`: the xclbin, once per machine and version."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from lowering.overlay.build import KNOWN_MLIR_AIE, BuildError, build
from torch_xdna.devices.npu import overlay as overlay_file
from torch_xdna.errors import XdnaError


@click.command(
    "build-overlay",
    help="Build the overlay (xclbin) with mlir-aie's aiecc and Peano. Written for mlir-aie "
    f"{', '.join(KNOWN_MLIR_AIE)}. Needs aiecc, xclbinutil, PEANO_INSTALL_DIR, and takes one to two minutes; "
    "an overlay that is already built from the same content is kept.",
)
@click.option(
    "--columns", type=click.Choice(["1", "2", "4"]), default="4", help="Columns of the array to use."
)
@click.option(
    "--output", type=click.Path(path_type=Path), default=None, help="Where; default: the user's cache."
)
@click.option("--force", is_flag=True, help="Build even if it is there.")
def command(columns: str, output: Path | None, force: bool) -> None:
    console = Console(stderr=True)
    count = int(columns)
    target = output or overlay_file.cache_path(count)
    with console.status("looking for the tools") as status:

        def report(text: str) -> None:
            status.update(text)
            console.print(text, highlight=False)

        try:
            built = build(count, target, overlay_file.kernel_name(count), report=report, force=force)
        except BuildError as error:
            raise XdnaError(str(error)) from error
    how = "was already built" if built.cached else f"built in {built.seconds:.0f} s"
    console.print(f"{built.path}: {how}", highlight=False)
