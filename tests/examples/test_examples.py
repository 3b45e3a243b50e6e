"""Every script of this folder runs as a reader would run it, and shows what its first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from torch_xdna import speech

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def shown(script: str, *arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, str(HERE / f"{script}.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def distances(out: str) -> list[float]:
    return [float(x) for x in re.findall(r"(?:eager|fp32|weight):? (\d\.\d+)", out)]


def test_every_script_is_tested() -> None:
    scripts = {path.stem for path in HERE.glob("*.py") if not path.stem.startswith("test_")}
    assert scripts == {"hf_pipeline", "one_layer", "new_op", "new_device"}


def test_the_pipeline_transcribes_and_all_of_the_encoder_runs_on_the_device() -> None:
    clip = speech.clips()[1]
    out = shown("hf_pipeline", str(clip.path))
    assert clip.text in out and "1 region, 0 eager ops" in out


@pytest.mark.parametrize("device", ["emulator", "array"])
def test_a_layer_is_close_to_eager(device: str) -> None:
    out = shown("one_layer", device)
    assert "aten.native_layer_norm" in out and "0 eager ops" in out
    (distance,) = distances(out)
    assert 0 < distance < 0.006


def test_a_new_op_runs_on_the_emulator_and_is_refused_by_the_array() -> None:
    out = shown("new_op")
    emulator, array = out.split("array: ")
    assert "3 ops on the device" in emulator and "aten.relu" in emulator
    assert 0 < distances(emulator)[0] < 0.006
    assert "the overlay has no such op" in array and "3 eager ops" in array
    assert distances(array) == [0.0]  # it is eager


def test_a_new_device_runs_regions_and_packs_weights_that_change() -> None:
    out = shown("new_device")
    assert "Feedforward on numpy" in out and "1 region, 0 eager ops" in out
    before, after = distances(out)
    assert 0 < before < 0.006 and 0 < after < 0.006
