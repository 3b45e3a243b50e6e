"""`torch-xdna transcribe FILE...`: audio files of any length to text, JSON or subtitles.

Windows of all files go through the model in common batches, in order. A file that can't be read costs one
sentence on stderr and the exit code 2; the others are done. Transcripts go to stdout, everything else to
stderr.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torch_xdna.errors import XdnaError

if TYPE_CHECKING:
    from torch_xdna.speech.languages import Heard
    from torch_xdna.speech.subtitles import Segment
    from torch_xdna.speech.transcriber import Transcriber
    from torch_xdna.speech.windows import Window

# Not torch_xdna.devices.names(): `--help` would wait for nothing else, and a test compares the two.
DEVICES = ("auto", "npu", "emulator", "array")
FORMATS = ("text", "json", "srt", "vtt")
TASKS = ("transcribe", "translate")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--model", help="Hugging Face id or folder of a Whisper model.  [default: the shipped checkpoint]"
)
@click.option(
    "--language", help="What is spoken: a code or name, as es or Spanish.  [default: detected per file]"
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
    "--batch-size", type=click.IntRange(min=1), default=4, show_default=True, help="Windows per batch."
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--profile", is_flag=True, help="Print where the time went, as measured here, on stderr.")
def command(
    files: tuple[Path, ...],
    model: str | None,
    language: str | None,
    task: str,
    device: str,
    batch_size: int,
    form: str,
    profile: bool,
) -> None:
    """Transcribe recordings and videos (wav, flac, mp3, ogg, m4a, mp4, webm, ...; any rate, any length; - is
    standard input) with the encoder on the NPU or the emulator.
    """
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    transcriber = _load(model, device)
    transcriber.choose(language, task)
    jobs = [Job(path) for path in files]
    writer = Writer(form, several=len(jobs) > 1, language=transcriber.language)
    with Progress(jobs) as progress:
        run(jobs, transcriber, batch_size, progress.advance, lambda job: progress.above(writer.write, job))
    if any(job.windows for job in jobs):
        _print_report(device)
        if profile:
            _print_profile(transcriber, sum(job.seconds for job in jobs))
    if any(job.error for job in jobs):
        sys.exit(2)


def _nothing_heard() -> Heard:
    from torch_xdna.speech.languages import Heard

    return Heard()


@dataclass
class Job:
    """One file on its way: `windows` counts those handed to the model, `done` those that came back."""

    path: Path
    segments: list[Segment] = field(default_factory=list)
    windows: int = 0
    done: int = 0
    seconds: float = 0.0
    is_read: bool = False
    error: XdnaError | None = None
    heard: Heard = field(default_factory=_nothing_heard)

    @property
    def is_finished(self) -> bool:
        return self.is_read and self.done == self.windows


def run(
    jobs: list[Job],
    transcriber: Transcriber,
    batch_size: int,
    advance: Callable[[float], None],
    finished: Callable[[Job], None],
) -> None:
    """Streams every file's windows through the model; calls `finished` once per job, in their order."""
    from torch_xdna.speech.audio import AudioError, read_blocks, shown
    from torch_xdna.speech.windows import windows

    batch: list[tuple[Job, Window]] = []
    waiting = list(jobs)

    def flush() -> None:
        found = transcriber.transcribe([window for _, window in batch], [job.heard for job, _ in batch])
        for (job, window), segments in zip(batch, found):
            if isinstance(segments, XdnaError):
                job.error = job.error or XdnaError(f"{shown(job.path)} can't be transcribed: {segments}")
            else:
                job.segments += segments
            job.done += 1
            advance(window.seconds)
        batch.clear()
        while waiting and waiting[0].is_finished:
            finished(waiting.pop(0))

    for job in jobs:
        try:
            blocks = transcriber.stopwatch.each("reading", read_blocks(job.path, transcriber.rate))
            for window in windows(blocks, transcriber.rate, transcriber.window_seconds):
                batch.append((job, window))
                job.windows += 1
                job.seconds += window.seconds
                if len(batch) == batch_size:
                    flush()
        except AudioError as error:
            job.error = error
        job.is_read = True
    flush()


@dataclass(frozen=True)
class Writer:
    """Transcripts on stdout as they come. With several files text lines begin with the file's name, subtitles
    follow a `==> name <==` line as `head` prints it; JSON lines carry the name anyway."""

    form: str
    several: bool
    language: str | None = None

    def write(self, job: Job) -> None:
        from torch_xdna.speech.audio import shown
        from torch_xdna.speech.subtitles import FORMATS
        from torch_xdna.speech.vocabulary import language_name

        name = shown(job.path)
        if job.error is not None:
            click.echo(f"torch-xdna: {job.error}", err=True)
            return
        if job.heard.seconds:
            spoken = ", ".join(map(language_name, job.heard.seconds))
            click.echo(f"{name}: language {spoken}, detected", err=True)
        text = FORMATS[self.form](name, job.segments, self.language or job.heard.most)
        if self.several and self.form == "text":
            text = f"{name}: {text}"
        elif self.several and self.form != "json":
            text = f"==> {name} <==\n{text}\n"
        click.echo(text, nl=False)


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


def _load(model: str | None, device: str) -> Transcriber:
    from torch_xdna import devices, speech
    from torch_xdna.speech.transcriber import load

    devices.select(device)  # an unusable device is said before a model is loaded
    _say_if_off(device)
    transcriber = load(model or speech.CHECKPOINT)
    transcriber.model.model.encoder.compile(backend="xdna", options={"device": device})
    return transcriber


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


def _print_report(device: str) -> None:
    """What ran where, from the backend's own reports: `encoder: 1 region, 0 eager ops`."""
    from torch_xdna import reports

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
            context = transcriber.model.config.max_source_positions
            window = transcriber.window_seconds
            show(
                profile_regions(report.region_list, name=report.name, context=context, audio_seconds=window),
                console,
            )


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("ch") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"
