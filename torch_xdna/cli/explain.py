"""`torch-xdna explain`: where each op of a Whisper encoder would run, and why; needs no device and no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from torch_xdna.devices.npu.overlay import installed_variant

if TYPE_CHECKING:
    from transformers import WhisperConfig

    from torch_xdna.report import Report


@click.command()
@click.argument("model", required=False)
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Clips at once.")
@click.option(
    "--attention", type=click.Choice(["sdpa", "eager"]), default="sdpa", show_default=True,
    help="The attention implementation of the model.",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True
)
@click.option("--regions", is_flag=True, help="Print the ops of each region, as devices get them, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: str | None, batch_size: int, attention: str, dtype: str, regions: bool, as_json: bool
) -> None:
    """Where each op of the encoder of MODEL would run, and why not on the NPU where it does not.

    MODEL is a size (tiny, base, small, medium, large-v3, large-v3-turbo), a folder with a config.json, or the name
    of a model on the Hugging Face hub; the shipped checkpoint if left out. Only its configuration is read.
    """
    report = explain_encoder(encoder_config(model), batch_size=batch_size, attention=attention, dtype=dtype)
    if as_json:
        click.echo(report.to_json())
        return
    click.echo(str(report).rstrip())
    variant = installed_variant()
    if variant.without:
        click.echo(f"the installed overlay is '{variant.name}', without {', '.join(variant.without)}")
    if regions:
        for region in report.region_list:
            click.echo(f"\n{region}")


def encoder_config(model: str | None) -> WhisperConfig:
    """The configuration behind a size, a folder or a hub name; raises XdnaError."""
    from transformers import WhisperConfig

    from torch_xdna import model_config as configuration
    from torch_xdna.speech import CHECKPOINT

    return WhisperConfig.from_dict(configuration.read(model or CHECKPOINT))


def explain_encoder(
    config: WhisperConfig, *, batch_size: int = 1, attention: str = "sdpa", dtype: str = "float32"
) -> Report:
    """The report of the encoder that a configuration describes, traced on the meta device: nothing is computed."""
    import torch
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    from torch_xdna import explain

    config._attn_implementation = attention
    kind: Any = getattr(torch, dtype)
    with torch.device("meta"):
        encoder = WhisperEncoder(config).eval().to(kind)
        mel = torch.empty(batch_size, config.num_mel_bins, 2 * config.max_source_positions, dtype=kind)
    return explain(encoder, mel)
