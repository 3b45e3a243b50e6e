"""`torch-xdna build-overlay`: the xclbin, once per machine and version."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
from rich.console import Console

from torch_xdna.devices.npu import overlay as overlay_file
from torch_xdna.errors import XdnaError
from torch_xdna.lowering.overlay.build import BuildError, build
from torch_xdna.lowering.overlay.toolchain import MLIR_AIE, PEANO, RECOMMENDED
from torch_xdna.lowering.overlay.variants import BY_NAME, FULL


@click.command(
    "build-overlay",
    help="Build the overlay (xclbin) with mlir-aie's aiecc and Peano. Recommended: mlir-aie "
    f"{RECOMMENDED[MLIR_AIE]} with Peano {RECOMMENDED[PEANO]}. Needs aiecc, xclbinutil, PEANO_INSTALL_DIR, and takes "
    "one to two minutes per attempt: where the cores' programs do not fit, it compiles them tighter, then leaves "
    "kernels out. An overlay that is already built from the same content is kept.",
)
@click.option(
    "--columns", type=click.Choice(["1", "2", "4"]), default="4", help="Columns of the array to use."
)
@click.option(
    "--output", type=click.Path(path_type=Path), default=None, help="Where; default: the user's cache."
)
@click.option("--force", is_flag=True, help="Build even if it is there.")
@click.option(
    "--any-toolchain",
    is_flag=True,
    help="Build also with versions that are known to be bad, and with soft floats.",
)
@click.option(
    "--level", type=click.Choice(["-O2", "-O1"]), default="-O2", show_default=True, help="Of optimisation."
)
@click.option(
    "--largest", type=click.Choice([*BY_NAME]), default=FULL.name, show_default=True,
    help="Leave out from the start what this variant lacks, for instance a kernel that a version miscompiles.",
)  # fmt: skip
def command(
    columns: str, output: Path | None, force: bool, any_toolchain: bool, level: str, largest: str
) -> None:
    console = Console(stderr=True)
    count = int(columns)
    target = output or overlay_file.cache_path(count)
    with console.status("looking for the tools") as status:

        def report(text: str) -> None:
            status.update(text)
            console.print(text, highlight=False)

        try:
            built = build(
                count, target, partial(overlay_file.kernel_name, count), report=report, force=force,
                any_toolchain=any_toolchain, level=level, largest=BY_NAME[largest],
            )  # fmt: skip
        except BuildError as error:
            raise XdnaError(str(error)) from error
    how = "was already built" if built.cached else f"built in {built.seconds:.0f} s"
    console.print(f"{built.path}: {how}", highlight=False)
    console.print(built.manifest.summary, highlight=False)
    if without := BY_NAME[built.manifest.variant].without:
        console.print(
            f"it is without {', '.join(without)}: alone, these run eager on the CPU; `torch-xdna explain` shows where",
            highlight=False,
        )
