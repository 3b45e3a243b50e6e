"""Load and faults on the real server: `python benchmarks/serving.py` (5 minutes), results in results/serving.md.

50 clients ask for two minutes, without a pause, for the shipped clips; every text must be the one that a single client
got before. Then the same server is treated badly and must go on as before. Measured on this machine, whose CPU the
clients share with the server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from serving_faults import FAULTS, full_disk

from torch_xdna import speech

RESULTS = Path(__file__).parent / "results"
CLIPS = speech.clips()


class Served:
    """`torch-xdna serve` with the shipped model on the emulator, in a process of its own."""

    def __init__(self, *options: str, before: list[str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log"
        command = [
            *(before or []),
            sys.executable,
            "-m",
            "torch_xdna",
            "serve",
            "--port",
            "0",
            "--device",
            "emulator",
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        end = time.monotonic() + 180
        while not (found := re.search(r"serving .* at (http://\S+)", self.log)):
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not start: {self.log}")
            time.sleep(0.1)
        self.address = found[1]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def memory(self) -> float:
        """Resident MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def health(self) -> dict[str, Any]:
        return requests.get(self.address + "/health", timeout=30).json()

    def text(self, path: str, session: Any = requests) -> tuple[int, str]:
        with open(path, "rb") as file:
            answer = session.post(
                self.address + "/v1/audio/transcriptions",
                files={"file": file},
                data={"model": "whisper-1"},
                timeout=300,
            )
        return answer.status_code, answer.json().get("text", answer.text)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._folder.cleanup()
        return code


@dataclass
class Load:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    asked: int = 0
    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    audio: float = 0.0


def load(
    server: Served, expected: dict[str, str], clients: int, seconds: float
) -> tuple[Load, list[dict[str, float]]]:
    found, lock, samples = Load(), threading.Lock(), []
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        with requests.Session() as session:
            turn = number
            while time.monotonic() < end:
                clip = CLIPS[turn % len(CLIPS)]
                turn += 1
                begin = time.monotonic()
                with lock:
                    found.asked += 1
                try:
                    status, text = server.text(clip.path, session)
                except requests.RequestException as error:
                    status, text = 0, str(error)
                with lock:
                    found.seconds.append(time.monotonic() - begin)
                    found.statuses[status] += 1
                    found.audio += clip.seconds
                    if text != expected[clip.path]:
                        found.wrong.append(f"{Path(clip.path).name}: {text!r}, alone {expected[clip.path]!r}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        samples.append(
            {"at": time.monotonic() - end + seconds, "mb": server.memory(), "fds": server.descriptors()}
        )
        time.sleep(1)
    for thread in threads:
        thread.join()
    return found, samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--output", type=Path, default=RESULTS / "serving.md", help="also as .json beside it")
    options = parser.parse_args()

    server = Served()
    expected = {}
    begin = time.monotonic()
    for clip in CLIPS:
        status, expected[clip.path] = server.text(clip.path)
        assert status == 200, expected[clip.path]
    alone = time.monotonic() - begin
    before = {"mb": server.memory(), "fds": server.descriptors(), "cpu": server.cpu_seconds()}
    begin = time.monotonic()
    found, samples = load(server, expected, options.clients, options.seconds)
    took = time.monotonic() - begin
    cpu = server.cpu_seconds() - before["cpu"]
    metrics = requests.get(server.address + "/metrics", timeout=30).text
    after = server.health()
    faults = [
        (name, *fault(server, CLIPS[0].path, expected[CLIPS[0].path])) for name, fault in FAULTS.items()
    ]
    rest = {"mb": server.memory(), "fds": server.descriptors()}
    code = server.stop()
    faults.append(("a full disk", *full_disk(Served, CLIPS[0].path, expected[CLIPS[0].path])))

    seconds = sorted(found.seconds)
    windows = sum(after["windows"].values())
    batches = float(re.search(r"torch_xdna_batch_windows_count (\S+)", metrics)[1])  # type: ignore[index]
    late = [s["mb"] for s in samples if s["at"] > options.seconds / 4]
    result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, shared with the clients and whatever else ran",
        "clients": options.clients,
        "seconds": round(took, 1),
        "answers": len(seconds),
        "asked": found.asked,
        "statuses": dict(found.statuses),
        "texts that differ": found.wrong,
        "requests per second": round(len(seconds) / took, 2),
        "times real time": round(found.audio / took, 1),
        "one client alone, requests per second": round(len(CLIPS) / alone, 2),
        "median seconds": round(seconds[len(seconds) // 2], 2),
        "95 % seconds": round(seconds[int(len(seconds) * 0.95)], 2),
        "longest seconds": round(seconds[-1], 2),
        "windows per batch": round(windows / batches, 2),
        "server CPU seconds": round(cpu, 1),
        "memory MB before": round(before["mb"]),
        "memory MB after a quarter": round(late[0]),
        "memory MB highest after a quarter": round(max(late)),
        "memory MB at the end": round(samples[-1]["mb"]),
        "memory MB after the faults": round(rest["mb"]),
        "descriptors before, highest, after": [
            before["fds"],
            max(int(s["fds"]) for s in samples),
            rest["fds"],
        ],
        "exit code after SIGTERM": code,
        "faults": [
            {"what": what, "answer": answer, "as it should be": good} for what, answer, good in faults
        ],
    }
    options.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    options.output.write_text(table(result))
    print(table(result))
    failed = found.wrong or set(found.statuses) != {200} or found.asked != len(seconds) or code
    sys.exit(bool(failed or not all(good for *_, good in faults)))


def table(result: dict[str, Any]) -> str:
    lines = ["# The server under load and faults, measured", ""]
    lines += [
        f"{result['clients']} clients, each asking again as soon as it has its answer, for the shipped clips on the"
    ]
    lines += [
        "shipped model (`device=emulator`), then faults on the same server. `python benchmarks/serving.py` makes this."
    ]
    lines += ["", "| what | |", "| --- | --- |"]
    for name, value in result.items():
        if name != "faults":
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
            lines.append(f"| {name} | {json.dumps(shown) if isinstance(shown, dict) else shown} |")
    lines += [
        "",
        "| fault | what the client got, and the server after it | as it should be |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {f['what']} | {f['answer']} | {'yes' if f['as it should be'] else 'NO'} |"
        for f in result["faults"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
