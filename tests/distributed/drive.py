"""`python drive.py FOLDER`: jobs on a Ray cluster of this machine, in a process of their own, since Ray leaves threads
and handlers behind. FOLDER holds `sounds`; what came of it is
written to `found.json` there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from scripted import tone
from toy import Toy

from torch_xdna.distributed import job
from torch_xdna.speech.engine import Wanted


def ran(log: Path) -> int:
    """Windows that workers have run since the last time."""
    lines = sum(len(file.read_text().splitlines()) for file in log.iterdir())
    for file in log.iterdir():
        file.unlink()
    return lines


def main(folder: Path) -> None:
    log = folder / "log"
    log.mkdir()
    found: dict[str, Any] = {}
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    asked = Wanted()

    def run(name: str, workers: int, seconds: float = 0.0, finished: Any = None, output: str = "") -> None:
        into = folder / (output or name)
        summary = job.run(
            Toy(log, seconds), asked, folder / "sounds", into, workers=workers, finished=finished
        )
        found[name] = {
            "found": summary.found,
            "before": summary.done_before,
            "now": summary.transcribed,
            "errors": summary.errors,
            "windows": ran(log),
        }

    killed: list[int] = []

    def kill(row: dict[str, Any]) -> None:
        if not killed:
            killed.append(int(row["worker"].rpartition(":")[2]))
            os.kill(killed[0], signal.SIGKILL)

    run("one", workers=1)
    run("two, one of them killed", workers=2, seconds=0.2, finished=kill)
    found["killed"] = killed
    run("again", workers=2, output="one")
    (folder / "sounds" / "new.wav").write_bytes(tone(1234))
    changed = folder / "sounds" / "tone0.wav"
    changed.write_bytes(tone(2000))
    (folder / "sounds" / "deadly.wav").write_bytes(tone(7000, 0.5))
    (folder / "sounds" / "beside.wav").write_bytes(tone(800, 0.5))
    run("more", workers=1, output="one")
    (folder / "found.json").write_text(json.dumps(found))  # Ray itself writes to stdout


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
    main(Path(sys.argv[1]))
