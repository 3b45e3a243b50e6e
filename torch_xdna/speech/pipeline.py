"""Recordings to segments: one thread reads, cuts and encodes, the caller's decodes what is encoded.

The encoder may be AHEAD batches in front of the decoder, so that an NPU and the CPU work at the same time and memory
stays flat. A window that can't be done is tried alone, and then costs its own words and no others.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from torch_xdna.errors import XdnaError
from torch_xdna.speech.audio import AudioError, read_blocks, shown
from torch_xdna.speech.languages import Heard
from torch_xdna.speech.subtitles import Segment
from torch_xdna.speech.transcriber import Encoded, Transcriber
from torch_xdna.speech.voice import Voice, spoken_windows
from torch_xdna.speech.windows import Window, windows

AHEAD = 2  # encoded batches that wait for the decoder at most
_PATIENCE = 0.1  # seconds between looks at whether the work was given up


@dataclass
class Job:
    """One file on its way: `windows` counts those that were cut, `done` those that came back, `failed` those without
    words; `seconds` are of the recording, silence included. `error` is the first thing that went wrong."""

    path: Path
    segments: list[Segment] = field(default_factory=list)
    windows: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    is_read: bool = False
    error: XdnaError | None = None
    heard: Heard = field(default_factory=Heard)
    _shown: float = 0.0  # seconds that progress was told of

    @property
    def is_finished(self) -> bool:
        return self.is_read and self.done == self.windows

    @property
    def is_lost(self) -> bool:
        """Whether there is nothing to write down but the error."""
        return self.error is not None and self.done == self.failed

    def take(self, window: Window, found: list[Segment] | XdnaError) -> float:
        """A window's result; returns how many seconds the file came forward."""
        self.done += 1
        if isinstance(found, XdnaError):
            self.failed += 1
            self.error = self.error or found
        else:
            self.segments += found
        before, self._shown = self._shown, max(self._shown, window.start + window.seconds)
        return self._shown - before

    def sentence(self) -> str | None:
        """What went wrong, for people."""
        if self.error is None or isinstance(self.error, AudioError):
            return None if self.error is None else str(self.error)
        if self.is_lost:
            return f"{shown(self.path)} can't be transcribed: {self.error}"
        return (
            f"{shown(self.path)}: {self.failed} of {self.windows} windows are missing, because {self.error}"
        )


@dataclass
class _Batch:
    """Windows and the jobs that they belong to, encoded together or, after a failure, one by one."""

    jobs: list[Job]
    parts: list[tuple[list[Window], Encoded | XdnaError]]


@dataclass
class _End:
    """A file was read to its end, or as far as `error` let it."""

    job: Job
    seconds: float
    error: AudioError | None


def run(
    jobs: list[Job],
    transcriber: Transcriber,
    batch_size: int,
    advance: Callable[[float], None],
    finished: Callable[[Job], None],
    *,
    vad: bool = False,
) -> None:
    """Streams every file's windows through the model; calls `advance` with seconds done and `finished` once per job, in
    their order, both in the calling thread. `vad`: windows by the voice detector. After an exception (Ctrl-C) jobs hold
    what was done."""
    stop = threading.Event()
    ready: queue.Queue[_Batch | _End | BaseException | None] = queue.Queue(AHEAD)
    producer = threading.Thread(
        target=_produce,
        args=(jobs, transcriber, batch_size, vad, ready, stop),
        name="xdna-encode",
        daemon=True,
    )
    waiting = list(jobs)
    producer.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, _End):
                item.job.is_read, item.job.seconds = True, item.seconds
                item.job.error = item.job.error or item.error
            else:
                _decode(item, transcriber, advance)
            while waiting and waiting[0].is_finished:
                finished(waiting.pop(0))
    finally:
        stop.set()
        producer.join()


def _decode(batch: _Batch, transcriber: Transcriber, advance: Callable[[float], None]) -> None:
    jobs = iter(batch.jobs)
    for cut, encoded in batch.parts:
        of = [next(jobs) for _ in cut]
        found: list[list[Segment] | XdnaError]
        if isinstance(encoded, XdnaError):
            found = [encoded] * len(cut)
        else:
            found = _decoded(cut, encoded, [job.heard for job in of], transcriber)
        for job, window, segments in zip(of, cut, found):
            advance(job.take(window, segments))


def _decoded(
    cut: list[Window], encoded: Encoded, heard: list[Heard], transcriber: Transcriber
) -> list[list[Segment] | XdnaError]:
    try:
        return transcriber.decode(encoded, heard)
    except Exception as error:
        if len(cut) == 1:
            return [_as_sentence(error)]
    found: list[list[Segment] | XdnaError] = []
    for window, known in zip(cut, heard):
        try:
            found += transcriber.decode(transcriber.encode([window]), [known])
        except Exception as error:
            found.append(_as_sentence(error))
    return found


def _produce(
    jobs: list[Job],
    transcriber: Transcriber,
    batch_size: int,
    vad: bool,
    ready: queue.Queue[Any],
    stop: threading.Event,
) -> None:
    def put(item: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put(item, timeout=_PATIENCE)
        raise _GivenUp

    batch: list[tuple[Job, Window]] = []
    ends: list[_End] = []  # of files whose last windows wait in the batch

    def flush() -> None:
        if batch:
            put(_encoded(batch, transcriber))
            batch.clear()
        for end in ends:
            put(end)
        ends.clear()

    try:
        for job in jobs:
            seconds, failure = _Count(), None
            try:
                for window in _cut(job, transcriber, vad, seconds):
                    batch.append((job, window))
                    job.windows += 1
                    if len(batch) == batch_size:
                        flush()
            except AudioError as error:
                failure = error
            ends.append(_End(job, seconds.value, failure))
            if not batch:
                flush()
        flush()
        put(None)
    except _GivenUp:
        return
    except BaseException as error:  # raised again where the caller waits
        with contextlib.suppress(_GivenUp):
            put(error)


class _GivenUp(Exception):
    """Nobody waits for results any more."""


@dataclass
class _Count:
    value: float = 0.0


def _cut(job: Job, transcriber: Transcriber, vad: bool, seconds: _Count) -> Iterator[Window]:
    rate, length = transcriber.rate, transcriber.window_seconds

    def counted(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            seconds.value += len(block) / rate
            yield block

    blocks = counted(transcriber.stopwatch.each("reading", read_blocks(job.path, rate)))
    if not vad:
        yield from windows(blocks, rate, length)
        return
    yield from spoken_windows(blocks, rate, length, Voice())


def _encoded(batch: list[tuple[Job, Window]], transcriber: Transcriber) -> _Batch:
    jobs, cut = [job for job, _ in batch], [window for _, window in batch]
    try:
        return _Batch(jobs, [(cut, transcriber.encode(cut))])
    except Exception as error:
        if len(cut) == 1:
            return _Batch(jobs, [(cut, _as_sentence(error))])
    parts: list[tuple[list[Window], Encoded | XdnaError]] = []
    for window in cut:
        try:
            parts.append(([window], transcriber.encode([window])))
        except Exception as error:
            parts.append(([window], _as_sentence(error)))
    return _Batch(jobs, parts)


def _as_sentence(error: Exception) -> XdnaError:
    if isinstance(error, XdnaError):
        return error
    lines = str(error).strip().splitlines() or ["no reason was given"]
    return XdnaError(f"{type(error).__name__}: {lines[0].rstrip('.')}")
