"""A Ray job with 1 and 2 workers, measured, and 1,000 hours on up to 100 machines, on paper.

`python benchmarks/distributed.py` writes results/distributed.md. Measured on this machine: the shipped model on the
emulator, and what reading and decoding cost in CPU time with the model of --model. The paper model puts these costs and
the NPU's modelled time together; nothing of it was run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
HOURS = 1000
BATCH = 8
MACHINES = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Costs:
    """Per second of audio: CPU seconds of `reading` and of `decoding` (with features), NPU seconds of `encoder`."""

    reading: float
    decoding: float
    encoder: float


@dataclass(frozen=True)
class Machine:
    """What the paper model assumes of each. `speed`: of one of its cores, where this machine's is 1; `megabits`: what
    one file server gives to all of them together."""

    cores: int = 8
    speed: float = 1.0
    start_seconds: float = 30.0
    megabits: float = 1000.0
    kilobits: float = 64.0  # of a recording per second


def on_paper(costs: Costs, machine: Machine, machines: int, unit_seconds: float) -> tuple[float, str]:
    """(seconds for HOURS of audio, what bounds them). Reading and decoding share the cores, which work while the NPU
    does; the last unit has no other beside it; every machine loads its model first."""
    audio = HOURS * 3600.0
    cpu = (costs.reading + costs.decoding) / (machine.cores * machine.speed)
    bounds = {
        "reading and decoding on the cores": audio * cpu / machines,
        "the NPU": audio * costs.encoder / machines,
        "the file server": audio * machine.kilobits / 1000 / machine.megabits,
    }
    what = max(bounds, key=lambda name: bounds[name])
    return machine.start_seconds + bounds[what] + unit_seconds * max(cpu, costs.encoder), what


def measured_job(workers: int, copies: int) -> tuple[float, float, float]:
    """(seconds from the first row to the last, seconds in all, seconds of audio between those rows)."""
    from torch_xdna import distributed, speech

    with tempfile.TemporaryDirectory() as folder:
        sounds = Path(folder) / "sounds"
        sounds.mkdir()
        for copy in range(copies):
            for clip in speech.clips():
                shutil.copy(clip.path, sounds / f"{copy:03d}-{Path(clip.path).name}")
        rows: list[tuple[float, float]] = []
        begin = time.monotonic()
        distributed.transcribe(
            sounds,
            output=Path(folder) / "out",
            device="emulator",
            workers=workers,
            finished=lambda row: rows.append((time.monotonic(), row["duration"])),
        )
        end = time.monotonic()
    # The first tenth is left out: until then not every worker has compiled.
    rows = rows[len(rows) // 10 :]
    return rows[-1][0] - rows[0][0], end - begin, sum(seconds for _, seconds in rows[1:])


def measured_costs(model: str | None, recording: str) -> tuple[Costs, str]:
    """CPU seconds per second of audio, of all threads together, and what was measured."""
    import torch

    from torch_xdna import speech
    from torch_xdna.speech.audio import read_blocks
    from torch_xdna.speech.opening import load
    from torch_xdna.speech.windows import windows

    torch.set_num_threads(1)
    transcriber = load(model or speech.CHECKPOINT, decoder="auto")
    assert transcriber.decoder is not None
    begin = time.process_time()
    blocks = read_blocks(recording, transcriber.rate)
    found = list(windows(blocks, transcriber.rate, transcriber.window_seconds))
    reading = time.process_time() - begin
    whole = (BATCH * found)[:BATCH]
    seconds = sum(window.seconds for window in whole)
    encoded = transcriber.encode(whole)
    decoding = 0.0
    for _ in range(2):  # the first time warms up
        begin = time.process_time()
        transcriber._features(whole)
        transcriber.decode(encoded)
        decoding = time.process_time() - begin
    what = f"decoder {transcriber.decoder.name}, batches of {BATCH} windows of {seconds / BATCH:.0f} s"
    return Costs(reading / sum(w.seconds for w in found), decoding / seconds, 0.0), what


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=15, help="of the 40 shipped clips")
    parser.add_argument("--model", help="whose decoder the paper model takes; default: the shipped one")
    parser.add_argument(
        "--recording", help="what it is measured on; default: the shipped clips, one after another"
    )
    parser.add_argument("--label", default="the shipped model", help="what --model is called in the table")
    parser.add_argument("--encoder-ms", type=float, default=90.8, help="modelled, of a window of 30 s")
    parser.add_argument("--cores", type=int, default=Machine.cores)
    parser.add_argument("--output", type=Path, default=RESULTS / "distributed.md")
    options = parser.parse_args()

    from torch_xdna.distributed.reading import UNIT_SECONDS

    with tempfile.TemporaryDirectory() as folder:
        recording = options.recording or joined(Path(folder) / "clips.flac")
        costs, what = measured_costs(options.model, recording)
    costs = Costs(costs.reading, costs.decoding, options.encoder_ms / 1000 / 30)
    machine = Machine(cores=options.cores)
    lines = ["# Many recordings: measured here, and 1,000 hours on paper", ""]
    lines += [
        "`python benchmarks/distributed.py` makes this; see [distributed.md](../../docs/distributed.md).",
        "",
    ]
    lines += [
        f"## Measured: {options.copies * 40} clips on {os.cpu_count()} cores, shipped model, emulator",
        "",
    ]
    lines += [
        "| workers | threads each | times real time, all workers up | seconds in all, starting Ray included |"
    ]
    lines += ["| --- | --- | --- | --- |"]
    for workers in (1, 2):
        between, in_all, audio = measured_job(workers, options.copies)
        threads = max(1, (os.cpu_count() or 1) // workers)
        lines.append(f"| {workers} | {threads} | {audio / between:.1f} | {in_all:.0f} |")
    lines += [
        "",
        "One worker has both cores, two have one each, so they can be no faster together here; the machine was shared.",
        "",
        f"CPU seconds per hour of audio ({options.label}, {what}): reading and resampling "
        f"{3600 * costs.reading:.1f}, features and decoder {3600 * costs.decoding:.0f}.",
        "",
        f"## On paper, modelled, not run: {HOURS:,} hours, machines with an NPU and {machine.cores} cores",
        "",
    ]
    lines += [
        f"Encoder {options.encoder_ms} ms per 30 s (modelled), reading and decoding as measured above on one core and "
        f"divided by {machine.cores} cores of the same speed, {machine.kilobits:.0f} kbit/s recordings from one file "
        f"server with {machine.megabits:.0f} Mbit/s, {machine.start_seconds:.0f} s until a model is loaded.",
        "",
        "| machines | time | times real time | bound by |",
        "| --- | --- | --- | --- |",
    ]
    for count in MACHINES:
        took, bound = on_paper(costs, machine, count, UNIT_SECONDS)
        lines.append(f"| {count} | {shown(took)} | {HOURS * 3600 / took:,.0f} | {bound} |")
    options.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def joined(path: Path) -> str:
    """The shipped clips as one recording."""
    import numpy as np
    import soundfile

    from torch_xdna import speech
    from torch_xdna.speech.audio import read

    soundfile.write(path, np.concatenate([read(clip.path, 16_000) for clip in speech.clips()]), 16_000)
    return str(path)


def shown(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    main()
