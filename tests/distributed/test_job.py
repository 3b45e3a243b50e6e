"""A job on a Ray cluster of several worker processes: one is killed midway, the next run does only what is new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import tone

pq = pytest.importorskip("pyarrow.parquet", reason="the extra `ray` is not installed")
pytest.importorskip("ray.data", reason="the extra `ray` is not installed")

HERE = Path(__file__).parent
TONES = 40
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("job")
    sounds = folder / "sounds" / "deeper"
    sounds.mkdir(parents=True)
    for number in range(TONES):
        (sounds.parent / f"tone{number}.wav").write_bytes(tone(100 + 10 * number, 0.5))
    (sounds / "long.wav").write_bytes(tone(3000, 700))  # three pieces
    (sounds / "cut.wav").write_bytes(tone(500, 30)[:99_999])
    (sounds / "none.wav").write_bytes(b"")
    (sounds / "notes.md").write_text("no recording")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "serve"), str(HERE.parents[1])]),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, HERE / "drive.py", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "found.json").read_text())


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found = [row for file in folder.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    by_path = {Path(row["path"]).name: row for row in found}
    assert len(by_path) == len(found), "a recording has two rows"
    return by_path


def told(folder: Path) -> dict[str, Any]:
    """Rows without what differs from run to run."""
    return {name: {**row, "worker": None} for name, row in rows(folder).items()}


def test_a_worker_killed_in_the_middle(driven: tuple[Path, dict[str, Any]]) -> None:
    folder, found = driven
    one, two = found["one"], found["two, one of them killed"]
    assert (one["found"], one["now"], one["before"]) == (TONES + 3, TONES + 3, 0)
    assert (two["now"], two["errors"]) == (one["now"], one["errors"])
    assert (
        found["killed"] and two["windows"] >= one["windows"] > 0
    )  # what the dead one had begun is done again
    workers = {row["worker"] for row in rows(folder / "two, one of them killed").values()}
    assert len(workers) >= 2
    killed = told(folder / "two, one of them killed")
    first = told(folder / "one")
    for name in ("new.wav", "deadly.wav", "beside.wav", "tone0.wav"):  # what came or was changed afterwards
        first.pop(name)
        killed.pop(name, None)
    assert killed == first


def test_rows(driven: tuple[Path, dict[str, Any]]) -> None:
    found = rows(driven[0] / "two, one of them killed")
    assert {found[f"tone{n}.wav"]["text"] for n in range(TONES)} == {str(100 + 10 * n) for n in range(TONES)}
    long = found["long.wav"]
    assert set(long["text"].split()) == {"3000"} and long["duration"] == pytest.approx(700)
    assert long["segments"][0]["start"] == 0 and long["segments"][-1]["end"] == pytest.approx(700)
    starts = [segment["start"] for segment in long["segments"]]
    assert starts == sorted(starts) and len(set(starts)) == len(starts)
    assert (long["device"], long["language"], long["error"]) == ("npu", "en", None)


def test_errors_are_rows(driven: tuple[Path, dict[str, Any]]) -> None:
    found = rows(driven[0] / "one")
    assert found["cut.wav"]["error"].endswith("are there.") and "is truncated" in found["cut.wav"]["error"]
    assert found["none.wav"]["error"].endswith("is empty (0 bytes).")
    assert found["none.wav"]["whose"] == found["cut.wav"]["whose"] == "recording"
    assert "notes.md" not in found


def test_what_is_done_is_not_done_again(driven: tuple[Path, dict[str, Any]]) -> None:
    folder, found = driven
    assert found["again"] == {"found": TONES + 3, "before": TONES + 3, "now": 0, "errors": {}, "windows": 0}
    assert (found["more"]["before"], found["more"]["now"]) == (TONES + 2, 4)
    after = rows(folder / "one")
    assert (after["new.wav"]["text"], after["tone0.wav"]["text"]) == ("1230", "2000")


def test_a_recording_that_workers_die_of(driven: tuple[Path, dict[str, Any]]) -> None:
    """It ends neither the job nor the recordings beside it, and is not tried for ever."""
    folder, found = driven
    (error,) = found["more"]["errors"].values()
    assert error.endswith("deadly.wav can't be transcribed: 3 workers died of it.")
    after = rows(folder / "one")
    assert after["beside.wav"]["text"] == "800" and after["deadly.wav"]["whose"] == "run"
