"""`torch-xdna serve`: transcription over HTTP for OpenAI's clients, whisper.cpp's, and a browser."""

from __future__ import annotations

import os
from pathlib import Path

import click

from torch_xdna.errors import XdnaError

DEVICES = ("auto", "npu", "emulator", "array")
DECODERS = ("auto", "ctranslate2", "hf")
KEY = "TORCH_XDNA_API_KEY"


@click.command()
@click.option(
    "--model", help="Hugging Face id or folder of a Whisper model.  [default: the shipped checkpoint]"
)
@click.option("--name", help="What clients call the model.  [default: the last part of --model]")
@click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="What runs the encoder."
)
@click.option(
    "--decoder",
    type=click.Choice(DECODERS),
    default="auto",
    show_default=True,
    help="What writes the words: CTranslate2 (int8, fast; pip extra `fast`) or Hugging Face's (fp32).",
)
@click.option(
    "--vad/--no-vad",
    default=None,
    help="Find speech with Silero's detector, or by loudness.  [default: the detector where it is installed]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    help=f"File that holds the key which clients must show; ${KEY} is another way.",
)
@click.option(
    "--without-key", is_flag=True, help="Let everyone ask who reaches an address that is not loopback."
)
@click.option(
    "--allow-host", multiple=True, help="Name that requests may be sent to, besides loopback's and --host."
)
@click.option("--allow-origin", multiple=True, help="Web page that may ask, as https://example.org.")
@click.option(
    "--batch-size", type=click.IntRange(1, 64), default=8, show_default=True, help="Windows per batch."
)
@click.option(
    "--queue", type=click.IntRange(min=1), default=64, show_default=True, help="Requests at a time."
)
@click.option(
    "--max-upload", type=click.IntRange(min=1), default=512, show_default=True, help="MB of a request."
)
@click.option(
    "--max-minutes", type=click.FloatRange(min=0.1), default=240, show_default=True, help="Of a recording."
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=1),
    default=3600,
    show_default=True,
    help="From upload to answer.",
)
@click.option(
    "--grace-seconds",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="To finish after SIGTERM.",
)
@click.option(
    "--temp-folder",
    type=click.Path(file_okay=False, exists=True, writable=True),
    help="Where uploads are kept while they are read, without a name.  [default: the system's]",
)
def command(
    model: str | None,
    name: str | None,
    device: str,
    decoder: str,
    vad: bool | None,
    host: str,
    port: int,
    api_key_file: Path | None,
    without_key: bool,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    batch_size: int,
    queue: int,
    max_upload: int,
    max_minutes: float,
    max_seconds: float,
    grace_seconds: float,
    temp_folder: str | None,
) -> None:
    """Serve transcription over HTTP: OpenAI's /v1/audio interface, whisper.cpp's /inference, a page at /."""
    try:
        from torch_xdna.serve import server
        from torch_xdna.serve.guard import LOOPBACK, Access
        from torch_xdna.serve.limits import Limits
        from torch_xdna.speech.whisper_engine import load
    except ModuleNotFoundError as error:
        raise XdnaError(
            f"serving needs '{error.name}', which is not installed: pip install '.[serve]' in the checkout"
        ) from error

    key = _key(api_key_file)
    if not server.is_loopback(host) and not key and not without_key:
        raise XdnaError(
            f"{host} may be reached by others and there is no key: set ${KEY} or --api-key-file, or say --without-key"
        )
    hosts = (*LOOPBACK, host, *allow_host)
    if not server.is_loopback(host) and not allow_host:
        hosts = ()  # a key, or the flag, decides who may ask
    limits = Limits(
        jobs=queue,
        batch_size=batch_size,
        windows_ahead=max(32, 2 * batch_size),
        upload_bytes=max_upload << 20,
        audio_seconds=60 * max_minutes,
        request_seconds=max_seconds,
        grace_seconds=grace_seconds,
        folder=temp_folder,
    )
    server.log_to_stderr()
    server.run(
        lambda: load(model, name, device, decoder=decoder, vad=vad),
        limits,
        Access(key, hosts, allow_origin),
        host,
        port,
    )


def _key(file: Path | None) -> str:
    """From the file or the environment; not from the command line, which every user of a machine can read."""
    if file is None:
        return os.environ.get(KEY, "").strip()
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise XdnaError(
            f"--api-key-file {file} can't be read: {getattr(error, 'strerror', 'no text')}"
        ) from error
    if not key:
        raise XdnaError(f"--api-key-file {file} is empty: write a key into it")
    return key
