"""`torch-xdna transcribe FILE...`: audio files of any length to text, JSON or subtitles.

Windows of all files go through the model in common batches, in order. A file that can't be read costs one
sentence on stderr and the exit code 2; the others are done. Transcripts go to stdout or into a folder, everything else
to stderr.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torch_xdna.errors import XdnaError

if TYPE_CHECKING:
    from torch_xdna.speech.pipeline import Job
    from torch_xdna.speech.transcriber import Transcriber

# Not torch_xdna.devices.names(): `--help` would wait for nothing else, and a test compares the two.
DEVICES = ("auto", "npu", "emulator", "array")
FORMATS = ("text", "json", "srt", "vtt", "tsv")
TASKS = ("transcribe", "translate")
DECODERS = ("auto", "ctranslate2", "hf")
INTERRUPTED = 130  # 128 + SIGINT, as shells say it


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model",
    help="Hugging Face id or folder of a Whisper model, or a folder in CTranslate2's format.  "
    "[default: the shipped checkpoint]",
)
@click.option(
    "--language",
    help="What is spoken: a code or name, as es or Spanish. A window of up to 30 s, the model's context, has one: what "
    "is said in another one within it is translated or lost.  [default: detected per window]",
)
@click.option(
    "--task",
    type=click.Choice(TASKS),
    default="transcribe",
    show_default=True,
    help="Write what is said, or translate it into English.",
)
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
    "--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Windows per batch."
)
@click.option("--beam-size", type=click.IntRange(min=1), default=1, show_default=True, help="1 is greedy.")
@click.option("--initial-prompt", default="", help="Text taken as said before: spelling, style.")
@click.option("--hotwords", default="", help="Words to expect: names, terms.")
@click.option("--word-timestamps", is_flag=True, help="When every word was said, in json and vtt.")
@click.option(
    "--vad/--no-vad",
    default=None,
    help="Find speech with Silero's detector, or by loudness.  [default: the detector where it is installed]",
)
@click.option(
    "--context",
    type=click.Choice(("full", "auto")),
    default="full",
    show_default=True,
    help="auto: windows shorter than the model's encode only what they have, in steps of a fifth.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="[default: text; every one with --output-dir]",
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a file per recording and format here instead of on standard output.",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Transcribe FILES (folders, patterns, lists) on a Ray cluster, without an address on one of this machine.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --ray: folder for the Parquet files.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="With --ray.  [default: what the machines have room for]"
)
@click.option("--profile", is_flag=True, help="Print where the time went, as measured here, on stderr.")
def command(
    files: tuple[Path, ...], model: str | None, language: str | None, task: str, device: str, decoder: str,
    batch_size: int, beam_size: int, initial_prompt: str, hotwords: str, word_timestamps: bool, vad: bool | None,
    context: str, form: str | None, output_dir: Path | None, ray: str | None, output: Path | None,
    workers: int | None, profile: bool,
) -> None:  # fmt: skip
    """Transcribe recordings and videos (wav, flac, mp3, ogg, m4a, mp4, webm, ...; any rate, any length; - is
    standard input) with the encoder on the NPU or the emulator.
    """
    from torch_xdna.cli.transcripts import FolderWriter, Writer, folder_names
    from torch_xdna.speech.pipeline import Job, run

    warnings.showwarning = _show_warning  # type: ignore[assignment]
    if ray is not None:
        from torch_xdna.cli import transcribe_ray

        transcribe_ray.run(
            ray, files, output, model=model, language=language, task=task, device=device, decoder=decoder,
            batch_size=batch_size, workers=workers, prompt=initial_prompt,
        )  # fmt: skip
        return
    if not files:
        raise click.UsageError("Missing argument 'FILES...'.")
    names = folder_names(output_dir, files) if output_dir else {}
    transcriber = _load(model, device, decoder, context)
    transcriber.choose(language, task)
    transcriber.prompt, transcriber.hotwords = initial_prompt, hotwords
    transcriber.beam_size, transcriber.word_times = beam_size, word_timestamps
    transcriber.check()
    jobs = [Job(path) for path in files]
    writer: Writer | FolderWriter
    if output_dir:
        writer = FolderWriter(output_dir, [form] if form else FORMATS, names, transcriber.language)
    else:
        writer = Writer(form or "text", several=len(jobs) > 1, language=transcriber.language)
    written = []

    def finished(job: Job) -> None:
        written.append(job)
        progress.above(writer.write, job)

    with Progress(jobs) as progress:
        try:
            run(jobs, transcriber, batch_size, progress.advance, finished, vad=_vad(vad, transcriber.rate))
        except KeyboardInterrupt:
            progress.stop()
            for job in jobs:
                if job not in written and job.done:
                    writer.write(job, incomplete=True)
            sys.exit(INTERRUPTED)
    if any(job.windows for job in jobs):
        _print_report(transcriber, device)
        if profile:
            _print_profile(transcriber, sum(job.seconds for job in jobs))
    if any(job.error for job in jobs):
        sys.exit(2)


def _vad(asked: bool | None, rate: int) -> bool:
    """Whether the voice detector cuts; XdnaError if it is asked for and can't."""
    from torch_xdna.speech import voice

    reason = voice.missing()
    if rate != voice.RATE:
        reason = f"the model wants {rate} Hz and the detector {voice.RATE}"
    if asked and reason:
        raise XdnaError(f"--vad can't be had, because {reason}; leave it out to find speech by loudness")
    return reason is None if asked is None else asked


class Progress:
    """A bar over all files' seconds on stderr, if that is a terminal."""

    def __init__(self, jobs: Iterable[Job]):
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        self._shown = console.is_terminal
        columns = (TextColumn("transcribing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = Bar(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self._shown,
        )
        self._task = self._bar.add_task("", total=sum(map(_duration, jobs)) if self._shown else None)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stop(self) -> None:
        self._bar.stop()

    def advance(self, seconds: float) -> None:
        self._bar.advance(self._task, seconds)

    def above(self, action: Callable[[Job], None], job: Job) -> None:
        """Runs what prints, with the bar out of its way."""
        self._bar.stop()
        action(job)
        self._bar.start()


def _duration(job: Job) -> float:
    from torch_xdna.speech.audio import AudioError, duration

    try:
        return duration(job.path)
    except AudioError:
        return 0.0  # said once, when its turn comes


def _load(model: str | None, device: str, decoder: str, context: str) -> Transcriber:
    from torch_xdna import devices, speech
    from torch_xdna.speech.opening import load

    devices.select(device)  # an unusable device is said before a model is loaded
    _say_if_off(device)
    return load(model or speech.CHECKPOINT, decoder=decoder, device=device, short_context=context == "auto")


def _say_if_off(device: str) -> None:
    """The encoder would run eager without a word: raises XdnaError if a device was asked for that is none of it."""
    from torch_xdna.switches import switched_off

    off = switched_off()
    if off and device in ("npu", "array"):
        raise XdnaError(f"--device {device} can't run the encoder, because {off}")
    if off:
        click.echo(f"torch-xdna: the encoder runs eager on the CPU, because {off}", err=True)


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    click.echo(f"torch-xdna: {message}", err=True)


def _print_report(transcriber: Transcriber, device: str) -> None:
    """What ran where, from the backend's own reports: `encoder: 1 region, 0 eager ops`."""
    from torch_xdna import reports

    if transcriber.encoder is not None and transcriber.encoder.door is not None:
        click.echo(f"encoder: {transcriber.encoder.summary()}", err=True)
    for report in reports():
        click.echo(report.summary(), err=True)
        if device == "array":
            changes = _count(report.overlay_changes, "overlay change")
            click.echo(f"{_count(report.dispatches, 'dispatch')}, {changes}", err=True)


def _print_profile(transcriber: Transcriber, audio_seconds: float) -> None:
    """Measured seconds per stage on this machine, then what the encoder is modelled to take on the NPU."""
    from rich.console import Console
    from rich.table import Table

    from torch_xdna import reports
    from torch_xdna.profile import profile_regions
    from torch_xdna.profile.terminal import show

    console = Console(stderr=True)
    stages = transcriber.stopwatch.seconds
    table = Table(title=f"measured here, for {audio_seconds:.1f} s of audio", title_justify="left")
    for column in ("stage", "seconds", "times real time"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, seconds in [*stages.items(), ("sum", sum(stages.values()))]:
        table.add_row(stage, f"{seconds:.3f}", f"{audio_seconds / seconds:.1f}")
    console.print(table)
    for report in reports():
        if report.region_list:
            context = transcriber.context
            window = transcriber.window_seconds
            show(
                profile_regions(report.region_list, name=report.name, context=context, audio_seconds=window),
                console,
            )


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("ch") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"
