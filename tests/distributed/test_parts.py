"""The parts of a job, each without Ray: what there is, how it is cut, what workers claim, how rows come together."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import RATE, Scripted, tone

from torch_xdna.cli import cli
from torch_xdna.distributed import reading
from torch_xdna.distributed.claims import NPU, READING, claims
from torch_xdna.distributed.sources import Recording, recordings
from torch_xdna.distributed.workers import Worker
from torch_xdna.errors import XdnaError
from torch_xdna.speech.engine import Wanted

pq = pytest.importorskip("pyarrow.parquet", reason="the extra `ray` is not installed")

from torch_xdna.distributed.results import Folder, Writer  # noqa: E402


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    (folder / "below").mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.wav").write_bytes(tone(100 * (number + 1), 2))
    (folder / "below" / "long.WAV").write_bytes(tone(900, 65))
    (folder / "notes.md").write_text("none")
    return folder


# Sources


def test_sources(sounds: Path) -> None:
    whole = recordings(sounds)
    assert [Path(one.path).name for one in whole] == [*(f"{n}.wav" for n in range(5)), "long.WAV"]
    assert all(one.size == Path(one.path).stat().st_size for one in whole)
    assert recordings(str(sounds / "*.wav")) == whole[:5]
    assert recordings([sounds / "0.wav", sounds]) == whole
    (sounds / "list.txt").write_text("0.wav\nbelow/long.WAV\ngone.wav\n\n")
    listed = recordings(sounds / "list.txt")
    assert [Path(one.path).name for one in listed] == ["0.wav", "long.WAV", "gone.wav"]
    assert listed[-1].size == -1


def test_no_source(sounds: Path) -> None:
    for source in (sounds / "gone", sounds / "*.mp3", sounds / "gone.txt"):
        with pytest.raises(XdnaError):
            recordings(source)
    (sounds / "empty").mkdir()
    with pytest.raises(XdnaError, match="there is no recording"):
        recordings(sounds / "empty")


# Reading


def units(found: list[Recording]) -> list[reading.Unit]:
    rows = [row for group in reading.groups(found) for row in reading.read(group, RATE, 10.0)]
    return [reading.Unit.of(row["meta"], row["samples"]) for row in rows]


def test_long_recordings_go_in_pieces(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNIT_SECONDS", 25.0)
    found = units(recordings(sounds))
    parts = [part for unit in found for part in unit.parts]
    assert all(unit.seconds <= 25 for unit in found)
    by_path: dict[str, list[reading.Part]] = {}
    for part in parts:
        by_path.setdefault(part.recording.path, []).append(part)
    for mine in by_path.values():
        assert [part.number for part in mine] == list(range(len(mine)))
        assert [part.is_last for part in mine] == [False] * (len(mine) - 1) + [True]
    long = by_path[str(sounds / "below" / "long.WAV")]
    assert len(long) >= 3 and sum(sum(part.lengths) for part in long) == 65 * RATE


def test_damage_and_errors_are_told(tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    mono = np.sin(np.arange(RATE) / 9)
    soundfile.write(tmp_path / "swapped.wav", np.stack([mono, -mono], 1), RATE)
    (tmp_path / "none.wav").write_bytes(b"")
    gone = Recording(str(tmp_path / "gone.wav"), -1, -1)
    (unit,) = units([*recordings(tmp_path), gone])
    none, swapped, missing = unit.parts
    assert "cancel each other" in swapped.note and not swapped.error
    assert none.error.endswith("is empty (0 bytes).") and missing.error.endswith("does not exist.")


def test_reading_needs_no_torch(sounds: Path) -> None:
    code = (
        "import sys; from torch_xdna.distributed import reading, sources;"
        f"found = sources.recordings({str(sounds)!r});"
        "rows = [r for g in reading.groups(found) for r in reading.read(g, 16000, 10.0)];"
        "assert rows and 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Claims

machines = st.lists(
    st.builds(
        lambda cpu, npu: {"CPU": float(cpu), **({NPU: float(npu)} if npu else {})},
        st.integers(1, 64),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=6,
)


@given(machines, st.none() | st.integers(1, 40), st.sampled_from(["auto", "emulator"]))
@settings(max_examples=200, deadline=None)
def test_workers_leave_room_for_reading(
    nodes: list[dict[str, float]], workers: int | None, device: str
) -> None:
    """However many are asked for, all of them find a place, and on every machine one reading task beside them."""
    found = claims(nodes, device, workers)
    assert found.workers >= 1 and found.cores > 0 and found.threads >= 1
    places = 0
    for node in nodes:
        by_cores = int((node["CPU"] - READING) / found.cores + 1e-9)
        places += min(by_cores, int(node.get(NPU, 0))) if found.resources else by_cores
    assert places >= found.workers
    if not found.resources and workers is not None:
        assert found.workers == workers
    if found.resources:
        assert found.workers <= sum(int(node.get(NPU, 0)) for node in nodes)


def test_claims() -> None:
    laptop = {"CPU": 8.0, NPU: 1.0}
    assert claims([laptop] * 3, "auto").workers == 3
    assert claims([laptop] * 3, "auto", workers=2).resources == {NPU: 1.0}
    assert claims([{"CPU": 2.0}], "auto", workers=2).cores < 1  # two workers on two cores and still room
    assert claims([{"CPU": 1.0}], "emulator").cores < 1
    assert claims([{"CPU": 16.0}], "emulator").workers == 4
    for nodes, device in (([{"CPU": 4.0}], "npu"), ([{"memory": 1.0}], "auto")):
        with pytest.raises(XdnaError):
            claims(nodes, device)


# Workers and results


def pieces(sounds: Path, **fails: Exception) -> list[dict[str, Any]]:
    engine = Scripted()
    engine.fails = {int(pitch[1:]): error for pitch, error in fails.items()}
    worker = Worker(lambda: engine, Wanted(), batch_size=4)
    rows = [row for group in reading.groups(recordings(sounds)) for row in reading.read(group, RATE, 10.0)]
    out = worker({"meta": [row["meta"] for row in rows], "samples": [row["samples"] for row in rows]})
    return [json.loads(text) for text in out["piece"]]


def rows_of(folder: Folder) -> dict[str, dict[str, Any]]:
    return {Path(r["path"]).name: r for file in folder.files() for r in pq.read_table(file).to_pylist()}


JOB = {"model": "toy", "language": None, "task": "transcribe"}


def test_pieces_in_any_order_and_twice(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNIT_SECONDS", 25.0)
    found = pieces(sounds)
    expected = None
    for number in range(5):
        folder = Folder(tmp_path / f"out{number}", JOB)
        writer = Writer(folder)
        shuffled = [*found, *found] if number else list(found)
        random.Random(number).shuffle(shuffled)
        written = [row for piece in shuffled if (row := writer.take(piece)) is not None]
        writer.flush()
        assert len(written) == 6
        expected = expected or rows_of(folder)
        assert rows_of(folder) == expected
    assert set(expected["long.WAV"]["text"].split()) == {"900"}


def test_what_fails_in_the_model_is_done_again(sounds: Path, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", JOB)
    writer = Writer(folder)
    for piece in pieces(sounds, _300=RuntimeError("out of memory")):
        writer.take(piece)
    writer.flush()
    found = rows_of(folder)
    assert "RuntimeError: out of memory" in found["2.wav"]["error"] and found["2.wav"]["whose"] == "run"
    assert found["1.wav"]["text"] == "200" and found["1.wav"]["error"] is None
    wanted = recordings(sounds)
    done = Folder(tmp_path / "out", JOB).done(wanted)
    assert {Path(one.path).name for one in wanted} - {Path(one.path).name for one in done} == {"2.wav"}
    assert "2.wav" not in rows_of(folder), "the row that is done again is taken out"


def test_names_that_are_no_text(sounds: Path, tmp_path: Path) -> None:
    import os

    odd = os.path.join(os.fsencode(sounds), b"caf\xe9\n.wav")
    with open(odd, "wb") as file:
        file.write(tone(700))
    folder = Folder(tmp_path / "out", JOB)
    writer = Writer(folder)
    for piece in pieces(sounds):
        writer.take(piece)
    writer.flush()
    assert rows_of(folder)["caf\\xe9\\n.wav"]["text"] == "700"
    assert len(folder.done(recordings(sounds))) == 7


def test_another_job_takes_another_folder(tmp_path: Path) -> None:
    Folder(tmp_path / "out", JOB)
    with pytest.raises(XdnaError, match=r"another job .*model"):
        Folder(tmp_path / "out", {**JOB, "model": "other"})
    folder = Folder(tmp_path / "out", JOB)
    with (
        folder.locked(),
        pytest.raises(XdnaError, match="another run"),
        Folder(tmp_path / "out", JOB).locked(),
    ):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(XdnaError, match="can't hold the results"):
        Folder(tmp_path / "file", JOB)


def test_mistakes_on_the_command_line(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_CLIENT_MODE", "0")  # Ray sets it when it is imported

    def said(*options: str) -> str:
        result = CliRunner().invoke(cli, ["transcribe", *options])
        assert result.exit_code, result.output
        return str(result.exception) if isinstance(result.exception, XdnaError) else result.output

    assert "--output" in said("--ray", str(sounds))
    assert "Missing argument" in said("--ray", "--output", "x")
    assert "Missing argument" in said()
    assert "does not exist" in said("--ray", "--output", str(sounds / "out"), str(sounds / "gone"))


def test_combinations_are_addresses_or_files() -> None:
    from torch_xdna.cli.transcribe_ray import _ADDRESS

    addresses = ("auto", "ray://head:10001", "10.0.0.1:6379", "head.local:6379", "[::1]:6379")
    files = ("clips", "./auto", "a.wav", "clips/*.flac", "/x/y", "list.txt", "C:x")
    assert all(map(_ADDRESS.fullmatch, addresses)) and not any(map(_ADDRESS.fullmatch, files))
