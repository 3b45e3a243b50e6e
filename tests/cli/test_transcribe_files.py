"""`torch-xdna transcribe --output-dir` and Ctrl-C: files that are whole, under names that do not collide."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from torch_xdna import speech
from torch_xdna.cli import transcribe, transcripts
from torch_xdna.errors import XdnaError
from torch_xdna.speech.audio import read

CLIPS = [clip for clip in speech.clips() if clip.noise_db is None and not clip.voice_held_out]


@pytest.fixture(autouse=True, scope="module")
def _own_compiles():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(transcribe.command, [*map(str, arguments), "--device", "emulator"])


def test_every_format_of_every_file(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run(*(clip.path for clip in CLIPS[:2]), "--output-dir", out)
    assert result.exit_code == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == sorted(map(str, out.iterdir()))
    stems = [Path(clip.path).stem for clip in CLIPS[:2]]
    assert {p.name for p in out.iterdir()} == {
        f"{s}.{e}" for s in stems for e in transcripts.ENDINGS.values()
    }
    for clip, stem in zip(CLIPS, stems):
        assert (out / f"{stem}.txt").read_text() == f"{clip.text}\n"
        assert json.loads((out / f"{stem}.json").read_text())["text"] == clip.text
        head, line = (out / f"{stem}.tsv").read_text().splitlines()
        assert head == "start\tend\ttext" and line.split("\t")[2] == clip.text


def test_one_format_if_one_is_asked_for(tmp_path: Path) -> None:
    assert run(CLIPS[0].path, "--output-dir", tmp_path, "--format", "srt").exit_code == 0
    assert [p.suffix for p in tmp_path.iterdir()] == [".srt"]


def test_names_do_not_collide(tmp_path: Path) -> None:
    a, b = Path("x/talk.wav"), Path("x/talk.mp3")
    assert transcripts.folder_names(tmp_path, [a, b, Path("-")]) == {
        a: "talk.wav",
        b: "talk.mp3",
        Path("-"): "stdin",
    }
    with pytest.raises(XdnaError, match=r"several recordings are named talk\.wav"):
        transcripts.folder_names(tmp_path, [a, b, Path("y/talk.wav")])
    with pytest.raises(XdnaError, match="named twice"):
        transcripts.folder_names(tmp_path, [a, a])


def test_a_folder_that_can_not_be_made_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(CLIPS[0].path, "--output-dir", tmp_path / "file" / "out", "--model", tmp_path / "none")
    assert "--output-dir" in str(result.exception) and "can't be made" in str(result.exception)


def test_hotwords_and_prompts_that_the_model_can_not_take_are_said_first() -> None:
    for option in ("--hotwords", "--initial-prompt"):
        result = run(CLIPS[0].path, option, "Madrid")
        known = "<|startofprev|>" in Path(speech.CHECKPOINT, "tokenizer.json").read_text()
        assert (result.exit_code == 0) == known or "takes no prompt" in str(result.exception)


def test_vad_that_can_not_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_xdna.speech import voice

    monkeypatch.setattr(voice, "missing", lambda: "onnxruntime is not installed")
    result = run(CLIPS[0].path, "--vad")
    assert "--vad can't be had, because onnxruntime is not installed" in str(result.exception)
    assert run(CLIPS[0].path).stdout == f"{CLIPS[0].text}\n"


def test_both_decoders_with_and_without_the_detector_give_the_same_words() -> None:
    pytest.importorskip("ctranslate2")
    paths = [*(clip.path for clip in CLIPS[:6]), "--language", "en"]
    first = run(*paths, "--decoder", "hf", "--no-vad").stdout
    assert run(*paths, "--decoder", "ctranslate2", "--no-vad").stdout == first
    assert run(*paths, "--decoder", "ctranslate2", "--vad", "--beam-size", 3).stdout == first


INTERRUPTED = """
import os, signal, sys
from torch_xdna.speech.transcriber import Transcriber
decode, calls = Transcriber.decode, []
def counted(self, *arguments):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGINT)
    return decode(self, *arguments)
Transcriber.decode = counted
from torch_xdna.cli import main
sys.argv[0] = "torch-xdna"
main()
"""


def test_ctrl_c_leaves_whole_files_and_says_how_far_it_came(tmp_path: Path) -> None:
    """The signal comes at the fourth window, of which the first is a file of its own."""
    samples = np.concatenate([read(clip.path, 16_000) for clip in CLIPS[:8]])
    path, out = tmp_path / "long.wav", tmp_path / "out"
    soundfile.write(path, np.tile(samples, 20), 16_000)
    shutil.copy(CLIPS[0].path, tmp_path / "first.flac")
    command = [sys.executable, "-c", INTERRUPTED, "transcribe", tmp_path / "first.flac", path, "--device",
               "emulator", "--output-dir", out, "--batch-size", "1"]  # fmt: skip
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 130, process.stderr
    assert "Traceback" not in process.stderr and "stopped, transcribed up to" in process.stderr
    names = {p.name for p in out.iterdir()}
    assert names == {
        f"{stem}.{e}" for stem in ("first", "long.incomplete") for e in transcripts.ENDINGS.values()
    }
    assert json.loads((out / "long.incomplete.json").read_text())["text"]
