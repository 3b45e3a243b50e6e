"""A job: find what is not done, read, transcribe, write; Ray places the parts and starts again what dies."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import ray
import ray.data

from torch_xdna import devices
from torch_xdna.distributed import reading
from torch_xdna.distributed.claims import NPU, READING, Claims, claims
from torch_xdna.distributed.results import Folder, Writer
from torch_xdna.distributed.sources import Recording, recordings
from torch_xdna.distributed.workers import Worker, lost
from torch_xdna.errors import XdnaError
from torch_xdna.speech.audio import shown
from torch_xdna.speech.engine import Engine, Wanted

_RETRIES = 2  # of a unit whose worker died
_BLOCK_BYTES = 32 << 20  # of units between the stages: small, so that workers get theirs early


@dataclass
class Summary:
    """`found`: recordings; `done_before`: of them in earlier runs; `errors`: path -> sentence, of this run."""

    found: int = 0
    done_before: int = 0
    transcribed: int = 0
    seconds: float = 0.0
    errors: dict[str, str] = field(default_factory=dict)
    claims: Claims | None = None


class Chosen(Protocol):
    """A model before any worker has it. `name`: for the job's record; `rate` and `window_seconds`: for those who read;
    `load`: what makes a worker's engine, given what workers claim."""

    name: str
    rate: int
    window_seconds: float

    def load(self, claims: Claims) -> Callable[[], Engine]: ...


def transcribe(
    source: str | Path | Iterable[str | Path],
    *,
    model: str | None = None,
    output: str | Path,
    address: str | None = None,
    language: str | None = None,
    task: str = "transcribe",
    prompt: str = "",
    device: str = "auto",
    decoder: str = "auto",
    batch_size: int = 8,
    workers: int | None = None,
    finished: Callable[[dict[str, Any]], None] | None = None,
) -> Summary:
    """Transcribes all recordings of `source` into Parquet files in the folder `output`, a row each.

    source: a folder (all below it), a file, a pattern, a list of paths in a .txt, or several of these; on a cluster
    every machine must see it by the same path. model: folder or Hugging Face id, None for the shipped one. address: of
    a Ray cluster, None starts one on this machine and ends it. device: `auto` takes the NPUs that machines declare
    (`ray start --resources '{"xdna_npu": 1}'`), else the emulator. decoder: auto takes CTranslate2's if it is installed
    here, and then every machine must have it. workers: None takes what the machines have room
    for. finished: is called with each row.

    What `output` holds already is not done again. A recording that can't be read is a row with its error. Raises
    XdnaError for what can't be begun; if it ends early, what was done stays.
    """
    from torch_xdna.distributed.model import Checkpoint

    asked = Wanted(language=language, task=task, prompt=prompt)
    chosen = Checkpoint(model, asked, device, decoder)
    return run(chosen, asked, source, output, address, device, batch_size, workers, finished)


def run(
    model: Chosen,
    asked: Wanted,
    source: str | Path | Iterable[str | Path],
    output: str | Path,
    address: str | None = None,
    device: str = "auto",
    batch_size: int = 4,
    workers: int | None = None,
    finished: Callable[[dict[str, Any]], None] | None = None,
) -> Summary:
    """`transcribe` with any engine."""
    found = recordings(source)
    summary = Summary(found=len(found))
    job = {"model": model.name, "language": asked.language, "task": asked.task, "prompt": asked.prompt}
    folder = Folder(output, job)
    with folder.locked():
        done = folder.done(found)
        summary.done_before = len(done)
        todo = [one for one in found if one not in done]
        if todo:
            with _cluster(address, device):
                summary.claims = claims(_nodes(), device, workers)
                writer = Writer(folder)
                jobs = _Jobs(model, asked, batch_size, summary.claims)
                try:
                    for piece in jobs.pieces(todo):
                        row = writer.take(piece)
                        if row is not None:
                            _count(summary, row)
                            if finished is not None:
                                finished(row)
                finally:
                    writer.flush()  # also when it ends early
    return summary


def _count(summary: Summary, row: dict[str, Any]) -> None:
    summary.transcribed += 1
    summary.seconds += row["duration"]
    if row["error"]:
        summary.errors[row["path"]] = row["error"]


@dataclass(frozen=True)
class _Jobs:
    """What Ray is given."""

    model: Chosen
    asked: Wanted
    batch_size: int
    claims: Claims

    def pieces(self, todo: Sequence[Recording]) -> Iterator[dict[str, Any]]:
        """The pieces of all recordings as they come.

        A unit whose worker dies is repeated. A recording that every worker dies of would be repeated for ever, so after
        some times its unit is given up; what is missing in the end is done once more, each recording on its own, and
        what is missing then gets a piece that says so.
        """
        missing = yield from self._pass(todo, reading.GROUP)
        if missing:
            missing = yield from self._pass(missing, 1)
        for recording in missing:
            yield lost(
                recording, f"{shown(recording.path)} can't be transcribed: {1 + _RETRIES} workers died of it."
            )

    def _pass(
        self, todo: Sequence[Recording], group: int
    ) -> Generator[dict[str, Any], None, list[Recording]]:
        """Yields pieces; returns recordings whose last piece did not come."""
        ended: set[str] = set()
        rows = iter(self._data(reading.groups(todo, group)).iter_rows())
        while True:
            try:
                piece = json.loads(next(rows)["piece"])
            except StopIteration:
                return [recording for recording in todo if recording.path not in ended]
            except ray.exceptions.RayError as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                reason = lines[-1].rstrip(".") if lines else type(error).__name__
                raise XdnaError(f"the job ended early: {reason}; run it again to go on") from error
            if piece["is_last"]:
                ended.add(piece["recording"]["path"])
            yield piece

    def _data(self, groups: list[dict[str, str]]) -> ray.data.Dataset:
        read = functools.partial(reading.read, rate=self.model.rate, window_seconds=self.model.window_seconds)
        data: ray.data.Dataset = ray.data.from_items(groups, override_num_blocks=len(groups))
        return data.flat_map(read, num_cpus=READING).map_batches(
            Worker,
            fn_constructor_args=(self.model.load(self.claims), self.asked, self.batch_size),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=self.claims.workers),
            num_cpus=self.claims.cores,
            resources=self.claims.resources or None,
            ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": _RETRIES},
        )


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextlib.contextmanager
def _cluster(address: str | None, device: str) -> Iterator[None]:
    """A cluster by its address, or one on this machine for as long as the job takes; one that is connected already
    stays as it is."""
    is_ours = not ray.is_initialized()
    if is_ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that we start reports to nobody
        more: dict[str, Any] = {"address": address} if address else _local(device)
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **more)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            where = f"at {address}" if address else "on this machine"
            raise XdnaError(f"there is no Ray cluster {where}: {reason}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK_BYTES
    context.max_errored_blocks = -1  # a unit that is given up does not end the job
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what ends the job becomes one sentence
    try:
        yield
    finally:
        if is_ours:
            ray.shutdown()


def _local(device: str) -> dict[str, Any]:
    has_npu = device in ("npu", "auto") and devices.unusable("npu") is None
    return {"include_dashboard": False, "resources": {NPU: 1} if has_npu else None}
