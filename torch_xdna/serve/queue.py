"""Recordings of many clients become common batches of one model.

Three kinds of threads: the event loop hands jobs in and takes their events out; a few readers decode recordings, a
window at a time; one runner takes windows of the jobs in turn, so that a long recording does not hold up short ones,
and gives those that ask the same to the engine together. Nothing waits for a batch to fill: under load it fills itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from torch_xdna.errors import XdnaError
from torch_xdna.serve.limits import Limits
from torch_xdna.serve.metrics import Metrics
from torch_xdna.serve.refused import Refused, stopping
from torch_xdna.speech import audio
from torch_xdna.speech.engine import Engine, Wanted
from torch_xdna.speech.heard import Heard
from torch_xdna.speech.subtitles import Segment
from torch_xdna.speech.windows import Window

READERS = 2
GUESSED = 1.1  # FFmpeg guesses some lengths; only what is longer than the limit by this is refused before it is read
_log = logging.getLogger("torch_xdna.serve")


@dataclass(frozen=True)
class Some:
    """The next segments of a job, up to `seconds` of its recording."""

    segments: list[Segment]
    seconds: float


@dataclass(frozen=True)
class Done:
    """Nothing follows."""


Event = Some | Done | Refused


@dataclass(eq=False)
class Job:
    """One recording on its way. `path`: of the file to read; `events`: for the event loop that made the job.

    The rest belongs to the queue: `ready`: windows that were read; `reading`: a reader has it; `is_read`: nothing
    more is to come; `running`: its windows in the batch that runs; `begun`: the engine had one of it.
    """

    path: str
    asked: Wanted
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    heard: Heard = field(default_factory=Heard)
    devices: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ready: deque[Window] = field(default_factory=deque)
    source: Iterator[Window] | None = None
    reading: bool = False
    is_read: bool = False
    running: int = 0
    begun: bool = False
    ended: bool = False


class Queue:
    """`start` once, `submit` jobs, `cancel` those whose client left, `stop` at the end."""

    def __init__(self, engine: Engine, limits: Limits, metrics: Metrics) -> None:
        self.engine, self.limits, self.metrics = engine, limits, metrics
        self.since = time.time()
        self.windows: dict[str, int] = {}
        self._jobs: deque[Job] = deque()  # in the order of their next turn
        self._changed = threading.Condition()
        self._stopping = False
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._runner = threading.Thread(target=self._run, name="runner", daemon=True)
        self._current = threading.local()

    def start(self) -> None:
        self._runner.start()

    def submit(self, job: Job) -> None:
        """Raises Refused (503) once the queue is stopping."""
        with self._changed:
            if self._stopping:
                raise stopping()
            self._jobs.append(job)
            self._read_ahead()

    def cancel(self, job: Job) -> None:
        """Nothing of it is read or run any more; what runs already ends without anybody to tell."""
        with self._changed:
            self._end(job, None)

    def stop(self, begun_too: bool = False) -> None:
        """Refuses jobs that have not begun, now and from now on; with `begun_too` also those that have."""
        with self._changed:
            self._stopping = True
            for job in [job for job in self._jobs if begun_too or not job.begun]:
                self._end(job, stopping())
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Waits at most `seconds` for the batch that runs."""
        self.stop(begun_too=True)
        self._runner.join(seconds)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def state(self) -> dict[str, int]:
        with self._changed:
            return {
                "jobs": len(self._jobs),
                "begun": sum(job.begun for job in self._jobs),
                "windows_read_ahead": sum(len(job.ready) for job in self._jobs),
                "windows_running": sum(job.running for job in self._jobs),
            }

    def note(self, message: str) -> None:
        """A warning of a reader's thread, told to the client whose recording it is about."""
        job = getattr(self._current, "job", None)
        if job is not None:
            job.notes.append(_without_path(message, job))
        else:
            _log.warning("%s", message)

    # Reading

    def _read_ahead(self) -> None:
        """Called with the lock held: gives readers what may be read now."""
        share = max(1, min(self.limits.batch_size, self.limits.windows_ahead // max(1, len(self._jobs))))
        for job in self._jobs:
            if not job.reading and not job.is_read and not job.ended and len(job.ready) < share:
                job.reading = True
                self._readers.submit(self._read, job)

    def _read(self, job: Job) -> None:
        """One window of a job, on a reader's thread."""
        refused, window = None, None
        self._current.job = job
        try:
            if job.source is None:
                with contextlib.suppress(audio.AudioError):  # reading says more of what is wrong
                    self._check_length(audio.duration(job.path), GUESSED)
                job.source = self.engine.windows(self._counted(job))
            window = next(job.source, None)
        except Refused as error:
            refused = error
        except audio.AudioError as error:
            refused = Refused(400, _without_path(str(error), job), "invalid_audio")
        except Exception:
            _log.exception("reading failed")
            refused = Refused(500, "the recording can't be read: the server's log says why", "read_failed")
        finally:
            self._current.job = None
        with self._changed:
            job.reading = False
            if refused is not None:
                self._end(job, refused)
            elif window is None:
                job.is_read = True
                self._finish(job)
            elif not job.ended:
                job.ready.append(window)
            if job.ended:
                job.source = None
            self._read_ahead()
            self._changed.notify_all()

    def _counted(self, job: Job) -> Iterator[np.ndarray]:
        """The samples of a recording; what is cut from them may leave silence out."""
        for block in audio.read_blocks(job.path, self.engine.rate):
            job.seconds += len(block) / self.engine.rate
            self._check_length(job.seconds)
            yield block

    def _check_length(self, seconds: float, tolerance: float = 1.0) -> None:
        if seconds > self.limits.audio_seconds * tolerance:
            raise Refused(
                413,
                f"the recording is longer than the {self.limits.audio_seconds:.0f} s that this server takes: cut it",
                "audio_too_long",
            )

    # Running

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (batch := self._next_batch()):
                    if self._stopping and not self._jobs:
                        return
                    self._changed.wait()
                self._read_ahead()
            self._transcribe(batch)
            with self._changed:
                for job, _ in batch:
                    job.running -= 1
                    self._finish(job)

    def _next_batch(self) -> list[tuple[Job, Window]]:
        """Called with the lock held: a window of each job in turn, of those that ask the same as the first."""
        batch: list[tuple[Job, Window]] = []
        while len(batch) < self.limits.batch_size:
            asked = batch[0][0].asked if batch else None
            job = next((job for job in self._jobs if job.ready and asked in (None, job.asked)), None)
            if job is None:
                break
            batch.append((job, job.ready.popleft()))
            job.running += 1
            job.begun = True
            self._jobs.remove(job)
            self._jobs.append(job)
        return batch

    def _transcribe(self, batch: list[tuple[Job, Window]]) -> None:
        """Runs a batch and tells its jobs. If it fails, each window has another try of its own: one that can't be
        transcribed must not take others down."""
        begin = time.perf_counter()
        try:
            ran = self.engine.run([w for _, w in batch], [job.heard for job, _ in batch], batch[0][0].asked)
        except Exception as error:
            if len(batch) > 1:
                _log.warning(
                    "a batch of %d windows failed (%s), each is run alone", len(batch), _reason(error)
                )
                for one in batch:
                    self._transcribe([one])
                return
            job, window = batch[0]
            _log.error("a window failed", exc_info=error)
            self._tell(job, window, XdnaError(_reason(error)))
            return
        self.metrics.ran(
            len(batch), sum(w.seconds for _, w in batch), time.perf_counter() - begin, ran.devices
        )
        with self._changed:
            for device in ran.devices:
                self.windows[device] = self.windows.get(device, 0) + len(batch)
        for (job, window), found in zip(batch, ran.found):
            job.devices.update(ran.devices)
            self._tell(job, window, found)

    def _tell(self, job: Job, window: Window, found: list[Segment] | XdnaError) -> None:
        end = window.start + window.seconds
        with self._changed:
            if isinstance(found, XdnaError):
                what = f"{window.start:.2f} s to {end:.2f} s can't be transcribed: {found}"
                self._end(job, Refused(500, what.rstrip("."), "transcription_failed"))
            elif not job.ended:
                _send(job, Some(found, end))

    def _finish(self, job: Job) -> None:
        """Called with the lock held."""
        if job.is_read and not job.ready and not job.running:
            self._end(job, Done())

    def _end(self, job: Job, event: Event | None) -> None:
        """Called with the lock held: the job leaves the queue, its client hears `event`; once."""
        if job.ended:
            return
        job.ended = True
        job.ready.clear()
        if not job.reading:
            job.source = None
        if job in self._jobs:
            self._jobs.remove(job)
        if event is not None:
            _send(job, event)
        self._read_ahead()
        self._changed.notify_all()


def _send(job: Job, event: Event) -> None:
    try:
        job.loop.call_soon_threadsafe(job.events.put_nowait, event)
    except RuntimeError:  # the loop is closed: the server is gone, and with it the client
        return


def _reason(error: Exception) -> str:
    """What a client may read: our own sentences whole, of others their kind (they may hold anything)."""
    if isinstance(error, XdnaError):
        return str(error).rstrip(".")
    return f"{type(error).__name__} in the model, which the server's log shows"


def _without_path(message: str, job: Job) -> str:
    return message.replace(audio.shown(job.path), "the recording").rstrip(".")


def tell_warnings(queue: Queue) -> Callable[..., None]:
    """For `warnings.showwarning`: what was wrong with a recording goes to whoever sent it, all else to the log."""
    warnings.filterwarnings("always", category=audio.AudioWarning)

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        queue.note(str(message))

    return show
