"""How recordings go through encoder and decoder: in order, side by side, and whatever goes wrong in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from torch_xdna.errors import XdnaError
from torch_xdna.speech import pipeline
from torch_xdna.speech.pipeline import AHEAD, Job
from torch_xdna.speech.stopwatch import Stopwatch
from torch_xdna.speech.subtitles import Segment
from torch_xdna.speech.windows import Window

RATE = 16_000


class Model:
    """Stands in for a Transcriber with windows of a second: a window's word is how loud it is, in tenths."""

    rate, window_seconds = RATE, 1.0

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()
        self.encoded: list[list[float]] = []

    def encode(self, windows):
        self.encoded.append([w.start for w in windows])
        return windows

    def decode(self, encoded, heard):
        return [[Segment(w.start, w.start + w.seconds, self.word(w))] for w in encoded]

    @staticmethod
    def word(window) -> str:
        return str(round(10 * float(np.abs(window.samples).max())))


@pytest.fixture(autouse=True)
def whole_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at every second, not where it is quiet."""

    def windows(blocks, rate: int, seconds: float) -> Iterator[Window]:
        samples = np.concatenate(list(blocks))
        for at in range(0, len(samples), rate):
            yield Window(at / rate, samples[at : at + rate], rate)

    monkeypatch.setattr(pipeline, "windows", windows)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Of 5, 1 and 3 seconds, each louder from second to second."""
    paths = []
    for number, seconds in enumerate((5, 1, 3)):
        samples = np.repeat(np.arange(1, seconds + 1) / 10, RATE).astype(np.float32)
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], samples, RATE, subtype="FLOAT")
    return paths


def through(model: Model, paths: list[Path], batch_size: int = 2, **options: object) -> list[Job]:
    jobs, done, seconds = [Job(path) for path in paths], [], []
    pipeline.run(jobs, model, batch_size, seconds.append, done.append, **options)  # type: ignore[arg-type]
    assert done == jobs
    assert sum(seconds) == pytest.approx(sum(job._shown for job in jobs))
    return jobs


def words(job: Job) -> str:
    return "".join(segment.text for segment in job.segments)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_every_window_once_in_order_in_full_batches(files: list[Path], batch_size: int) -> None:
    model = Model()
    jobs = through(model, files, batch_size)
    assert [words(job) for job in jobs] == ["12345", "1", "123"]
    assert [job.seconds for job in jobs] == [5, 1, 3]
    assert all(len(batch) == batch_size for batch in model.encoded[:-1])


def test_a_file_that_can_not_be_read_takes_none_along(files: list[Path], tmp_path: Path) -> None:
    first, bad, last = through(Model(), [files[0], tmp_path / "none.wav", files[2]])
    assert words(first) == "12345" and words(last) == "123"
    assert bad.is_lost and "none.wav" in str(bad.sentence()) and first.sentence() is None


@pytest.mark.parametrize("where", ["encode", "decode"])
@pytest.mark.parametrize("error", [XdnaError("it is bad"), RuntimeError("it is bad\nat line 3")])
def test_a_bad_window_costs_its_own_words(files: list[Path], where: str, error: Exception) -> None:
    class Failing(Model):
        pass

    def fail(self, windows, *heard):
        if any(self.word(w) == "2" for w in windows):
            raise error
        return getattr(Model, where)(self, windows, *heard)

    setattr(Failing, where, fail)
    jobs = through(Failing(), files, batch_size=3)
    assert ["2" in words(job) for job in jobs] == [False] * 3
    assert words(jobs[0]) == "1345" and words(jobs[1]) == "1" and words(jobs[2]) == "13"
    assert jobs[1].error is None and not jobs[2].is_lost
    said = "it is bad" if isinstance(error, XdnaError) else "RuntimeError: it is bad"
    assert jobs[2].sentence() == f"{files[2]}: 1 of 3 windows are missing, because {said}"


def test_the_encoder_is_so_far_ahead_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.full(20 * RATE, 0.1, np.float32), RATE)
    lead = []

    class Slow(Model):
        decoded = 0

        def decode(self, encoded, heard):
            time.sleep(0.02)
            self.decoded += 1
            lead.append(len(self.encoded) - self.decoded)
            return super().decode(encoded, heard)

    through(Slow(), [path], batch_size=1)
    assert 1 <= max(lead) <= AHEAD + 1


def test_the_encoder_works_while_the_decoder_does(tmp_path: Path) -> None:
    """An encoder that waits, as one on the NPU does, beside a decoder that takes longer: hidden but for the first."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.full(20 * RATE, 0.1, np.float32), RATE)
    encoder, decoder = 0.03, 0.04

    class Timed(Model):
        def encode(self, windows):
            time.sleep(encoder)
            return super().encode(windows)

        def decode(self, encoded, heard):
            time.sleep(decoder)
            return super().decode(encoded, heard)

    model = Timed()
    begin = time.perf_counter()
    through(model, [path], batch_size=1)
    taken, batches = time.perf_counter() - begin, len(model.encoded)
    hidden = 1 - (taken - batches * decoder) / (batches * encoder)
    assert hidden > 0.6  # on a machine with other work; `benchmarks/transcribe.py` measures it


def test_an_interrupt_leaves_what_is_done(files: list[Path]) -> None:
    class Interrupted(Model):
        def decode(self, encoded, heard):
            if any(w.start >= 2 for w in encoded):
                raise KeyboardInterrupt
            return super().decode(encoded, heard)

    jobs, done = [Job(path) for path in [files[1], files[0], files[2]]], []
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(jobs, Interrupted(), 1, lambda s: None, done.append)  # type: ignore[arg-type]
    assert done == jobs[:1] and words(jobs[0]) == "1" and words(jobs[1]).startswith("1")
    assert not any(thread.name == "xdna-encode" for thread in threading.enumerate())


def test_an_error_of_ours_is_raised_where_the_caller_waits(files: list[Path], monkeypatch) -> None:
    def broken(*_):
        raise KeyError("a bug")
        yield

    monkeypatch.setattr(pipeline, "windows", broken)
    with pytest.raises(KeyError, match="a bug"):
        through(Model(), files)
