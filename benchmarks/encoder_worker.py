"""A process per variant: first call, then one call whenever the parent asks, memory at the end.

All variants of a run are alive together and take turns, so that other work on the machine meets all of them, none
shares a process with another's threads or allocator, and memory is each one's own.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from encoder_variants import VARIANTS, build

PATIENCE = 600.0  # seconds for one answer; the longest is Inductor's cold compile of small


class Failed(Exception):
    """A variant that could not be measured; its text says why, in one sentence."""


class Worker:
    """The parent's end of a variant's process. Every method raises Failed where the process did."""

    def __init__(self, variant: str, size: str, folder: Path, threads: int) -> None:
        needed = VARIANTS[variant].needs
        if needed and not _version(needed):
            raise Failed(f"not installed: {needed}")
        self._log = folder / f"{variant}.log"
        self._pipe, theirs = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(
            target=_serve, args=(theirs, variant, size, folder, threads), daemon=False
        )
        self._process.start()
        theirs.close()

    def ask(self, question: str) -> Any:
        try:
            self._pipe.send(question)
            if not self._pipe.poll(PATIENCE):
                raise Failed(f"no answer within {PATIENCE:.0f} s")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            said = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Failed(": ".join([f"ended with exit code {self._process.exitcode}", *said])) from None
        if isinstance(answer, Failed):
            raise answer
        return answer

    def stop(self) -> None:
        self._pipe.close()  # the process reads the end and leaves
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def environment(threads: int, folder: Path) -> None:
    """For this process and those that it starts: equal threads, Inductor's caches empty, runtimes quiet."""
    os.environ |= {
        "OMP_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "PYTHONWARNINGS": "ignore",
        "TRANSFORMERS_VERBOSITY": "error",
        "CI": "true",  # where it is set, OpenVINO's converter sends no telemetry
    }


def prepare(size: str, folder: Path, variants: list[str]) -> tuple[dict[str, Any], dict[str, float | str]]:
    """Write the mel, the float64 output and the converted models.

    Returns what a table's head says of machine and versions, and seconds or what went wrong per conversion.
    """
    import torch

    encoder, mel = build(size)
    np.save(folder / "mel.npy", mel.numpy())
    outcome: dict[str, float | str] = {}
    with torch.no_grad():
        for name in variants:
            variant = VARIANTS[name]
            if variant.convert and variant.needs and _version(variant.needs):
                began = time.perf_counter()
                try:
                    variant.convert(encoder, mel, folder)
                    outcome[name] = time.perf_counter() - began
                except Exception as error:  # other packages' errors: a row of the table, not the end of it
                    outcome[name] = "the conversion " + _sentence(error)
        np.save(folder / "float64.npy", encoder.double()(mel.double()).last_hidden_state.numpy())
    return _about(torch.backends.cpu.get_cpu_capability()), outcome


def _about(capability: str) -> dict[str, Any]:
    packages = ("torch", "transformers", "openvino", "ctranslate2")
    versions = {name: version for name in packages if (version := _version(name))}
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "a CPU")
    return {"cpu": cpu, "capability": capability, "versions": versions}


def in_process(function, *args):
    """The result of function(*args) from a process of its own: what it imports is not kept here."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_send, args=(theirs, function, args))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise Failed(f"{function.__name__} ended without a result, see above") from None
    finally:
        process.join()


def _send(pipe: Connection, function, args) -> None:
    pipe.send(function(*args))


def _serve(pipe: Connection, variant: str, size: str, folder: Path, threads: int) -> None:
    log = os.open(folder / f"{variant}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)  # other packages' remarks would come between the rows
    os.dup2(log, 2)
    try:
        for question in iter(pipe.recv, None):
            if question == "first":
                mel = np.load(folder / "mel.npy")
                run, first = _first(variant, size, folder, threads, mel)
                pipe.send(first)
            elif question == "call":
                began = time.perf_counter(), time.process_time()
                run(mel)
                pipe.send((time.perf_counter() - began[0], time.process_time() - began[1]))
            else:
                pipe.send(_memory())
    except EOFError:
        pass
    except Exception as error:  # any package's: the parent's table says it
        pipe.send(Failed(_sentence(error)))


def _first(variant: str, size: str, folder: Path, threads: int, mel: np.ndarray):
    """(run, seconds and errors of the first call).

    Importing packages is not counted, nor is making torch's model; loading a converted one is.
    """
    for package in _imports(variant):
        importlib.import_module(package)
    began = time.perf_counter()
    run = VARIANTS[variant].load(size, folder, threads)
    loaded = time.perf_counter()
    output = run(mel).astype(np.float64)
    ended = time.perf_counter()
    reference = np.load(folder / "float64.npy")
    if output.shape != reference.shape or not np.isfinite(output).all():
        raise ValueError(f"output of shape {output.shape}, or not finite, where {reference.shape} is due")
    lengths = np.linalg.norm(output) * np.linalg.norm(reference)
    return run, {
        "first_call_s": ended - (began if VARIANTS[variant].convert else loaded),
        "max_abs_error": float(abs(output - reference).max()),
        "relative_error": float(np.linalg.norm(output - reference) / np.linalg.norm(reference)),
        "cosine": float((output * reference).sum() / lengths),
    }


def _imports(variant: str) -> list[str]:
    given = VARIANTS[variant]
    torch = [] if given.convert else ["torch", "transformers.models.whisper.modeling_whisper"]
    return torch + ([given.needs] if given.needs else [])


def _memory() -> dict[str, float]:
    """MB of this process now and at its peak."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    kilobytes = {words[0]: words[1] for words in lines if words[0] in ("VmRSS:", "VmHWM:")}
    return {
        "resident_mb": int(kilobytes["VmRSS:"]) * 1024 / 1e6,
        "peak_mb": int(kilobytes["VmHWM:"]) * 1024 / 1e6,
    }


def _sentence(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"fails: {type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
