"""Where transcripts go: standard output as they come, or files that are whole or not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from torch_xdna.cli import output
from torch_xdna.errors import XdnaError
from torch_xdna.speech.pipeline import Job

ENDINGS = {"text": "txt", "json": "json", "srt": "srt", "vtt": "vtt", "tsv": "tsv"}


@dataclass(frozen=True)
class Writer:
    """Transcripts on stdout as they come. With several files text lines begin with the file's name, subtitles
    follow a `==> name <==` line as `head` prints it; JSON lines carry the name anyway."""

    form: str
    several: bool
    language: str | None = None

    def write(self, job: Job, *, incomplete: bool = False) -> None:
        if not _said(job, incomplete):
            return
        name, text = _text(job, self.form, self.language)
        if self.several and self.form == "text":
            text = f"{name}: {text}"
        elif self.several and self.form != "json":
            text = f"==> {name} <==\n{text}\n"
        click.echo(text, nl=False)


@dataclass(frozen=True)
class FolderWriter:
    """One file per recording and form in `folder`, written in one step, its path on stdout; `names`: without ending,
    by path."""

    folder: Path
    forms: Sequence[str]
    names: dict[Path, str]
    language: str | None = None

    def write(self, job: Job, *, incomplete: bool = False) -> None:
        if not _said(job, incomplete):
            return
        stem = self.names[job.path] + (".incomplete" if incomplete else "")
        for form in self.forms:
            _, text = _text(job, form, self.language)
            path = self.folder / f"{stem}.{ENDINGS[form]}"
            output.write(path, text.encode())
            click.echo(path)


def folder_names(folder: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """A name for the transcripts of each recording: its own without the ending, with it where two would collide. Makes
    the folder. Raises XdnaError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise XdnaError(
            f"--output-dir {folder} can't be made: {error.strerror}; name another folder"
        ) from error
    output.check(folder / "transcript.txt")
    stems = Counter(_stem(path) for path in set(paths))
    names = {path: _stem(path) if stems[_stem(path)] == 1 else path.name for path in paths}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if len(set(names)) < len(paths):
        raise XdnaError("a recording is named twice, and its transcripts would have one name; name it once")
    if twice:
        raise XdnaError(
            f"several recordings are named {twice[0]}, and so would be their transcripts in {folder}; transcribe them "
            "into a folder each"
        )
    return names


def _stem(path: Path) -> str:
    return "stdin" if str(path) == "-" else path.stem


def _said(job: Job, incomplete: bool) -> bool:
    """Says what there is to say of a file; whether there is a transcript."""
    from torch_xdna.speech.audio import shown
    from torch_xdna.speech.vocabulary import language_name

    if (sentence := job.sentence()) is not None:
        click.echo(f"torch-xdna: {sentence}", err=True)
        if job.is_lost:
            return False
    if job.heard.seconds:
        spoken = ", ".join(map(language_name, job.heard.seconds))
        click.echo(f"{shown(job.path)}: language {spoken}, detected", err=True)
    if incomplete:
        end = job.segments[-1].end if job.segments else 0.0
        click.echo(f"torch-xdna: {shown(job.path)}: stopped, transcribed up to {end:.2f} s", err=True)
    return True


def _text(job: Job, form: str, language: str | None) -> tuple[str, str]:
    from torch_xdna.speech.audio import shown
    from torch_xdna.speech.subtitles import FORMATS

    name = shown(job.path)
    return name, FORMATS[form](name, job.segments, language or job.heard.most)
