"""One way to transcribe, run over all recordings and timed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from torch_xdna.errors import XdnaError
from torch_xdna.speech.audio import AudioError, read_blocks
from torch_xdna.speech.opening import load
from torch_xdna.speech.pipeline import Job, run
from torch_xdna.speech.transcriber import Transcriber
from torch_xdna.speech.windows import windows

DEVICES = ("eager", "auto", "npu", "emulator", "array")  # eager: the encoder as torch runs it, on the CPU
PRECISIONS = ("fp32", "bf16")
STAGES = ("reading", "features", "encoder", "decoder")


@dataclass(frozen=True)
class Variant:
    """`precision` is the encoder's: devices compute in bf16, eager in either."""

    device: str
    precision: str
    decoder: str

    def __str__(self) -> str:
        return f"{self.device} {self.precision}, {self.decoder}"

    def load(self, model: str) -> Transcriber:
        """Raises XdnaError."""
        found = load(model, decoder=self.decoder, device=None if self.device == "eager" else self.device)
        if self.device == "eager":
            if found.model is None:
                raise XdnaError(
                    f"'{model}' is in CTranslate2's format, which eager does not run; give a checkpoint"
                )
            if self.precision == "bf16":
                _in_bf16(found)
        return found


@dataclass
class Result:
    """`texts`: per recording, None where it failed; `seconds` and `cpu_seconds`: of every round over all of them;
    `stages`: seconds of the last round by stage, which overlap; `audio_seconds`: of one round."""

    variant: Variant
    texts: list[str | None] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    audio_seconds: float = 0.0
    decoder: str = ""  # that was taken

    @property
    def rtfx(self) -> float:
        """Seconds of sound per second, the median of the rounds."""
        return self.audio_seconds / median(self.seconds) if self.audio_seconds else 0.0

    @property
    def cpu_per_hour(self) -> float:
        """CPU seconds per hour of sound, all cores together, the median of the rounds."""
        return median(self.cpu_seconds) / self.audio_seconds * 3600 if self.audio_seconds else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """Of the stages' sum."""
        total = sum(self.stages.get(stage, 0.0) for stage in STAGES)
        return {stage: self.stages.get(stage, 0.0) / total if total else 0.0 for stage in STAGES}


def variants(devices: Sequence[str], precisions: Sequence[str], decoders: Sequence[str]) -> list[Variant]:
    """Every combination that exists. Raises XdnaError if there is none."""
    found = [
        Variant(device, precision, decoder)
        for device, precision, decoder in itertools.product(devices, precisions, decoders)
        if device == "eager" or precision == "bf16"
    ]
    if not found:
        raise XdnaError(
            f"no device of {', '.join(devices)} computes in {', '.join(precisions)}: devices compute in bf16, eager in "
            "fp32 and bf16"
        )
    return list(dict.fromkeys(found))


def evaluate(
    chosen: Sequence[Variant], model: str, paths: Sequence[Path], *, language: str | None, batch_size: int,
    rounds: int, vad: bool, told: Callable[[Variant, int], None] = lambda variant, number: None,
) -> Iterator[Result]:  # fmt: skip
    """Each variant is loaded, warmed up with the first window, and goes over all of them `rounds` times.

    A variant that can't be loaded raises XdnaError; a recording that fails is counted and the others are done.
    """
    for variant in chosen:
        transcriber = variant.load(model)
        transcriber.choose(language, "transcribe")
        result = Result(variant, decoder=transcriber.decoder.name if transcriber.decoder else "")
        _warm_up(transcriber, paths, batch_size)
        for number in range(rounds):
            told(variant, number)
            transcriber.stopwatch.seconds.clear()
            begin, cpu = time.perf_counter(), time.process_time()
            jobs = _round(transcriber, paths, batch_size, vad)
            result.seconds.append(time.perf_counter() - begin)
            result.cpu_seconds.append(time.process_time() - cpu)
        result.stages = dict(transcriber.stopwatch.seconds)
        result.texts = [None if job.is_lost else " ".join(s.text for s in job.segments) for job in jobs]
        result.failures = [sentence for job in jobs if (sentence := job.sentence()) is not None]
        result.audio_seconds = sum(job.seconds for job in jobs)
        yield result


def _round(transcriber: Transcriber, paths: Sequence[Path], batch_size: int, vad: bool) -> list[Job]:
    jobs = [Job(path) for path in paths]
    run(jobs, transcriber, batch_size, lambda seconds: None, lambda job: None, vad=vad)
    return jobs


def _warm_up(transcriber: Transcriber, paths: Sequence[Path], batch_size: int) -> None:
    """Compiles for one window and for a whole batch, packs weights, wakes threads up, all with the first window."""
    for path in paths:
        try:
            blocks = read_blocks(path, transcriber.rate)
            window = next(windows(blocks, transcriber.rate, transcriber.window_seconds), None)
        except AudioError:
            continue  # counted in its round
        if window is not None:
            for count in {1, batch_size}:
                transcriber.transcribe([window] * count)
            return


def _in_bf16(found: Transcriber) -> None:
    """The encoder alone; what goes in and out stays as the rest of the model has it."""
    import torch

    assert found.model is not None
    encoder = found.model.model.encoder.to(torch.bfloat16)
    encoder.register_forward_pre_hook(lambda module, args: tuple(a.to(torch.bfloat16) for a in args))
