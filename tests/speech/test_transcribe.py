"""`torch-xdna transcribe` with the shipped checkpoint: formats, exit codes, broken files, long files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from torch_xdna import devices, speech
from torch_xdna.cli import transcribe
from torch_xdna.errors import XdnaError
from torch_xdna.speech import opening, pipeline, subtitles, transcriber
from torch_xdna.speech.audio import read
from torch_xdna.speech.windows import Window

CLIPS = [clip for clip in speech.clips() if clip.noise_db is None and not clip.voice_held_out]


@pytest.fixture(autouse=True, scope="module")
def _own_compiles():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def heard() -> dict[str, str]:
    """What eager makes of the clips: the model's own mistakes are no business of the command line."""
    eager = opening.load(speech.CHECKPOINT)
    found = [eager.transcribe([Window(0.0, read(clip.path, 16_000), 16_000)]) for clip in CLIPS]
    return {clip.path: " ".join(s.text for s in segments) for clip, (segments,) in zip(CLIPS, found)}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(transcribe.command, [*map(str, arguments), "--device", "emulator"])


def test_choices_are_the_devices_and_formats_that_exist() -> None:
    assert set(transcribe.DEVICES) == set(devices.names())
    assert set(transcribe.FORMATS) == set(subtitles.FORMATS)


def test_one_file_gives_its_text_and_the_report(heard: dict[str, str]) -> None:
    result = run(CLIPS[0].path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{heard[CLIPS[0].path]}\n" == f"{CLIPS[0].text}\n"
    assert "encoder: 1 region, 0 eager ops\n" in result.stderr


@pytest.mark.parametrize("suffix", ["wav", "ogg", "mp3"])
def test_other_formats_rates_and_stereo_give_the_same_text(
    tmp_path: Path, heard: dict[str, str], suffix: str
) -> None:
    path = tmp_path / f"speech.{suffix}"
    samples = read(CLIPS[1].path, 44_100)
    soundfile.write(path, np.stack([samples, 0.5 * samples], axis=1), 44_100)
    assert run(path).stdout == f"{heard[CLIPS[1].path]}\n"


def test_several_files_in_order_whatever_the_batch(tmp_path: Path) -> None:
    paths = [clip.path for clip in CLIPS[:5]]
    outputs = {run(*paths, "--batch-size", size).stdout for size in (1, 3)}
    assert len(outputs) == 1
    lines = outputs.pop().splitlines()
    assert [line.partition(": ")[0] for line in lines] == paths


def test_json_srt_and_vtt(heard: dict[str, str]) -> None:
    clip = CLIPS[2]
    record = json.loads(run(clip.path, "--format", "json").stdout)
    (segment,) = record["segments"]
    assert record["file"] == clip.path and record["text"] == segment["text"] == heard[clip.path]
    assert segment["start"] == pytest.approx(0.25, abs=0.3)
    assert segment["end"] == pytest.approx(clip.seconds - 0.25, abs=0.4)
    assert run(clip.path, "--format", "vtt").stdout.startswith("WEBVTT\n\n00:00:00.")
    assert run(clip.path, "--format", "srt").stdout.startswith("1\n00:00:00,")


def test_broken_files_cost_one_sentence_each_and_the_others_are_done(
    tmp_path: Path, heard: dict[str, str]
) -> None:
    whole = Path(CLIPS[0].path).read_bytes()
    broken = {
        "missing.wav": None,
        "empty.wav": b"",
        "text.mp3": b"not audio at all\n" * 50,
        "cut.flac": whole[: len(whole) // 2],
    }
    for name, content in broken.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    samples = read(CLIPS[0].path, 16_000)
    samples[9_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    names = [*broken, "nan.wav"]
    result = run(CLIPS[0].path, *(tmp_path / name for name in names), CLIPS[1].path)
    assert result.exit_code == 2
    assert result.stdout == "".join(f"{clip.path}: {heard[clip.path]}\n" for clip in CLIPS[:2])
    for name in names:
        assert sum(str(tmp_path / name) in line for line in result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_samples_beyond_any_scale_cost_one_sentence(tmp_path: Path, heard: dict[str, str]) -> None:
    """Finite samples whose features are not; "!!!!" with exit code 0 once."""
    path = tmp_path / "loud.wav"
    soundfile.write(path, 1e20 * read(CLIPS[0].path, 16_000).astype(np.float64), 16_000, subtype="FLOAT")
    result = run(CLIPS[1].path, path, CLIPS[0].path)
    assert result.exit_code == 2
    assert result.stdout == "".join(f"{clip.path}: {heard[clip.path]}\n" for clip in (CLIPS[1], CLIPS[0]))
    (said,) = [line for line in result.stderr.splitlines() if str(path) in line]
    assert "where full scale is 1" in said


def test_features_that_are_not_finite_are_one_windows_error() -> None:
    found = opening.load(speech.CHECKPOINT)
    good = read(CLIPS[0].path, 16_000)
    first, bad, last = found.transcribe(
        [Window(0.0, s, 16_000) for s in (good, np.float32(1e20) * good, good)]
    )
    assert first == last and isinstance(first, list) and [s.text for s in first] == [CLIPS[0].text]
    assert (
        isinstance(bad, XdnaError) and "features of 0.00 s to" in str(bad) and "full scale is 1" in str(bad)
    )


def test_a_windows_error_is_its_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    class Refusing(transcriber.Transcriber):
        def decode(self, encoded, heard=None):
            found = super().decode(encoded, heard)
            return [XdnaError("it is too loud"), *found[1:]]

    model = opening.load(speech.CHECKPOINT)
    jobs = [pipeline.Job(Path(clip.path)) for clip in CLIPS[:2]]
    pipeline.run(jobs, Refusing(model.model, model.processor), 2, lambda _: None, lambda _: None)
    assert jobs[0].sentence() == f"{CLIPS[0].path} can't be transcribed: it is too loud"
    assert jobs[1].error is None and [s.text for s in jobs[1].segments] == [CLIPS[1].text]


POOR = {
    "none": None,
    "empty": {},
    "another model's": {
        "decoder_start_token_id": 50258,
        "eos_token_id": 50257,
        "no_timestamps_token_id": 50363,
        "suppress_tokens": [1, 2, 50361],
        "lang_to_id": {"<|en|>": 50259},
        "is_multilingual": True,
    },
    "a short length": {"max_length": 20, "max_new_tokens": 3},
    "a prompt": {"forced_decoder_ids": [[1, None], [2, 50359]], "language": "en", "task": "transcribe"},
    "more than ids": {"return_dict_in_generate": True, "output_scores": True},
}


@pytest.mark.parametrize("poor", POOR)
def test_the_generation_config_decides_nothing(tmp_path: Path, heard: dict[str, str], poor: str) -> None:
    folder = Path(shutil.copytree(speech.CHECKPOINT, tmp_path / "model"))
    (folder / "generation_config.json").unlink()
    if POOR[poor] is not None:
        (folder / "generation_config.json").write_text(json.dumps(POOR[poor]))
    found = opening.load(folder).transcribe([Window(0.0, read(CLIPS[0].path, 16_000), 16_000)])
    assert [" ".join(s.text for s in segments) for segments in found] == [heard[CLIPS[0].path]]


@pytest.mark.parametrize("arguments", [("--language", "de"), ("--task", "translate")])
def test_an_english_only_model_says_so(arguments: tuple[str, str]) -> None:
    error = run(CLIPS[0].path, *arguments).exception
    assert "English only" in str(error) and arguments[0] in str(error)


def test_english_may_be_asked_of_an_english_only_model(heard: dict[str, str]) -> None:
    result = run(CLIPS[0].path, "--language", "English", "--format", "json")
    record = json.loads(result.stdout)
    assert (record["language"], record["text"]) == ("en", heard[CLIPS[0].path])


def test_segments_begin_and_end_where_the_model_says() -> None:
    """The window is loud from its beginning; the prompt is among the ids and is nobody's words."""
    found = opening.load(speech.CHECKPOINT)
    zero, start, end = (found.vocabulary.zero or 0), found.vocabulary.start, found.vocabulary.end
    words = found.processor.tokenizer.encode(" left", add_special_tokens=False)
    window = Window(30.0, np.full(16_000 * 9, 0.1, np.float32), 16_000)
    ids = [start, zero + 260, *words, zero + 300, zero + 310, *words, zero + 400, end, end]
    assert [(s.start, s.end, s.text) for s in found._segments(window, ids)] == [
        (35.2, 36.0, "left"),
        (36.2, 38.0, "left"),
    ]
    (silent_about_it,) = found._segments(window, [start, *words, end])
    assert (silent_about_it.start, silent_about_it.end) == (30.0, 39.0)


def test_a_silent_file_is_an_empty_transcript(tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(48_000, np.float32), 16_000)
    result = run(path)
    assert (result.exit_code, result.stdout) == (0, "\n")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no config.json"), ("{", "not valid JSON"), ('{"model_type": "bert"}', "of type 'bert'")],
)
def test_a_folder_without_whisper_is_refused(tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    result = run(CLIPS[0].path, "--model", tmp_path)
    assert result.exit_code != 0 and reason in str(result.exception)


def test_profile_says_what_was_measured(heard: dict[str, str]) -> None:
    result = run(CLIPS[0].path, "--profile")
    assert "measured here" in result.stderr and "modelled" in result.stderr
    for stage in ("reading", "features", "encoder", "decoder"):
        assert stage in result.stderr
    assert result.stdout == f"{heard[CLIPS[0].path]}\n"


def long_file(path: Path, minutes: float) -> list[str]:
    """Clips with pauses, again and again, at 44.1 kHz; returns what is said."""
    pieces = [(clip.text, read(clip.path, 44_100)) for clip in CLIPS[:8]]
    said: list[str] = []
    written = 0
    with soundfile.SoundFile(path, "w", 44_100, 1, "PCM_16") as file:
        while written < minutes * 60 * 44_100:
            text, samples = pieces[len(said) % len(pieces)]
            file.write(np.concatenate([samples, np.zeros(22_050, np.float32)]))
            written += len(samples) + 22_050
            said.append(text)
    return said


def test_long_form_has_every_word_at_its_time(tmp_path: Path) -> None:
    said = long_file(tmp_path / "long.flac", minutes=1)
    record = json.loads(run(tmp_path / "long.flac", "--format", "json").stdout)
    assert jiwer.wer(" ".join(said), record["text"]) <= 0.05
    times = [moment for segment in record["segments"] for moment in (segment["start"], segment["end"])]
    assert times == sorted(times) and 57 < times[-1] < 65
    assert all(segment["end"] - segment["start"] <= 10 for segment in record["segments"])


FLAT = """
import resource, sys
from torch_xdna.speech import pipeline
from torch_xdna.speech.stopwatch import Stopwatch
from torch_xdna.speech.subtitles import Segment

class Deaf:
    rate, window_seconds, stopwatch, heard = 16_000, 10.0, Stopwatch(), 0.0

    def encode(self, windows):
        return windows

    def decode(self, windows, heard):
        self.heard += sum(window.seconds for window in windows)
        return [[Segment(w.start, w.start + w.seconds, "word")] for w in windows]

for path in sys.argv[1:]:
    deaf, job = Deaf(), pipeline.Job(path)
    pipeline.run([job], deaf, 4, lambda seconds: None, lambda job: None)
    print(deaf.heard, len(job.segments), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_stays_flat_over_an_hour(tmp_path: Path) -> None:
    """The model's memory is not what this is about, so a stand-in answers; reading and cutting are real."""
    paths = [tmp_path / "minute.wav", tmp_path / "hour.wav"]
    for path, minutes in zip(paths, (1, 60)):
        long_file(path, minutes)
    command = [sys.executable, "-c", FLAT, *paths]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    minute, hour = ([float(word) for word in line.split()] for line in result.stdout.splitlines())
    assert hour[0] == pytest.approx(3600, abs=5) and hour[1] >= 360
    assert hour[2] - minute[2] < 20e3  # KB; an hour of samples is 230 MB


def test_the_installed_command_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "torch_xdna", "transcribe", tmp_path / "none.wav", "--model", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "no config.json" in result.stderr


@pytest.mark.parametrize("level", [0.02, 0.1])
def test_speech_after_noise_begins_where_it_begins(tmp_path: Path, level: float) -> None:
    """Loudness says nothing here: it is loud from the beginning."""
    path = tmp_path / "noise_then.wav"
    noise = level * np.random.default_rng(0).standard_normal(5 * 16_000).astype(np.float32)
    clip = CLIPS[0]
    soundfile.write(path, np.concatenate([noise, read(clip.path, 16_000)[: 5 * 16_000]]), 16_000)
    record = json.loads(run(path, "--format", "json").stdout)
    assert record["text"] == clip.text
    begin = record["segments"][0]["start"]
    assert begin == pytest.approx(5.25, abs=0.2)  # times are a tenth of a second
    stamp = f"00:00:05,{round(1000 * (begin - 5)):03d} --> "
    assert stamp in run(path, "--format", "srt").stdout
