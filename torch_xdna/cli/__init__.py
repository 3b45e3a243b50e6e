"""`torch-xdna`: one command per module, imported only when it is called, so that `--help` stays quick."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from torch_xdna.errors import XdnaError

# command -> (module that holds a click command named `command`, one line of help)
COMMANDS = {
    "transcribe": (
        "torch_xdna.cli.transcribe",
        "Transcribe audio files with the encoder on the NPU or the emulator.",
    ),
    "serve": (
        "torch_xdna.cli.serve",
        "Serve transcription over HTTP: OpenAI's interface, whisper.cpp's, a page.",
    ),
    "evaluate": (
        "torch_xdna.cli.evaluate",
        "Word error rate and speed on your own recordings.",
    ),
    "export": ("torch_xdna.cli.export", "Write an encoder as one file that runs without torch."),
    "explain": ("torch_xdna.cli.explain", "Show where each op of a model's encoder runs, and why."),
    "devices": ("torch_xdna.cli.devices", "List the devices and whether each is usable here."),
    "disasm": ("torch_xdna.cli.disasm", "Print an instruction stream in readable form."),
    "build-overlay": ("torch_xdna.cli.build_overlay", "Build the overlay (xclbin) with mlir-aie and Peano."),
    "doctor": ("torch_xdna.cli.doctor", "Check hardware, driver and XRT, with a remedy for what is missing."),
    "selftest": ("torch_xdna.cli.selftest", "Run every op on the NPU, compare with the emulator, measure."),
    "estimate": ("torch_xdna.cli.estimate", "Modelled time of a GEMM or an encoder."),
    "profile": (
        "torch_xdna.cli.profile",
        "Modelled time per layer and op of an encoder, and what bounds it.",
    ),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(COMMANDS[name][0]).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="torch-xdna")
def cli() -> None:
    """Whisper encoders on AMD's first-generation Ryzen AI NPU (XDNA1), from plain PyTorch."""


def main() -> None:
    """Entry point: a user's mistake is one sentence on stderr and exit code 2, never a traceback."""
    try:
        cli(prog_name="torch-xdna", standalone_mode=True)
    except XdnaError as error:
        click.echo(f"torch-xdna: {error}", err=True)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        click.echo("torch-xdna: no space is left where the output goes; send it elsewhere", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in buffers would fail again
    else:
        return
    sys.exit(2)
