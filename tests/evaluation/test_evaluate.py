"""`torch-xdna evaluate`: manifests of every kind, word errors, every combination, what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from torch_xdna import speech
from torch_xdna.cli import evaluate
from torch_xdna.errors import XdnaError
from torch_xdna.evaluation import manifest, score, variant

pytest.importorskip("whisper_normalizer")

CLIPS = [clip for clip in speech.clips() if clip.noise_db is None and not clip.voice_held_out][:3]


@pytest.fixture(autouse=True, scope="module")
def _own_compiles():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate.command, [*map(str, arguments)])


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps([{"audio": clip.path, "text": clip.text.upper() + "!"} for clip in CLIPS]))
    return path


def test_choices_are_those_that_exist() -> None:
    assert evaluate.DEVICES == variant.DEVICES and evaluate.PRECISIONS == variant.PRECISIONS


def test_every_combination_is_measured_and_written_down(listed: Path, tmp_path: Path) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.svg"
    result = run(listed, "--device", "emulator", "--device", "eager", "--precision", "bf16", "--precision", "fp32",
                 "--decoder", "hf", "--rounds", 2, "--json", out, "--picture", picture)  # fmt: skip
    assert result.exit_code == 0, (result.stderr, result.exception)
    rows = json.loads(out.read_text())
    assert [(r["device"], r["precision"]) for r in rows] == [
        ("emulator", "bf16"),
        ("eager", "bf16"),
        ("eager", "fp32"),
    ]
    for row in rows:
        assert row["word_error_rate"] == 0 and row["texts"] == [clip.text for clip in CLIPS]
        assert row["words"] == 22  # "forty seven" is one number
        assert row["audio_seconds"] == pytest.approx(sum(clip.seconds for clip in CLIPS), abs=0.1)
        assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0 and row["cpu_seconds_per_hour"] > 0
        assert sum(row["stage_shares"].values()) == pytest.approx(1) and min(row["stage_shares"].values()) > 0
        assert f"{row['device']} {row['precision']}, hf" in result.stdout
    assert picture.read_text().lstrip().startswith("<?xml") and "0.00 %" in result.stdout


def test_texts_that_differ_are_shown_and_broken_recordings_are_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "broken.txt").write_text("gone")
    good = Path(CLIPS[0].path)
    (tmp_path / "good.flac").write_bytes(good.read_bytes())
    (tmp_path / "good.txt").write_text("add chicken")
    result = run(tmp_path, "--device", "eager", "--precision", "fp32", "--decoder", "hf")
    assert result.exit_code == 2
    assert sum("broken.wav" in line for line in result.stderr.splitlines()) == 1
    wrong = len(CLIPS[0].text.split()) - 2 + 1
    assert f"{100 * wrong / 3:.2f} %" in result.stdout


def test_word_errors_are_counted_after_whispers_normalisation() -> None:
    normalize = score.normalizer("en")
    assert normalize("Mr. Colour's twenty-one, um, [noise] cats!") == normalize("mister color is 21 cats")
    assert score.normalizer("es")("¡Hola, Señor!").split() == ["hola", "señor"]
    found = score.errors(["a b c d", "", "e"], ["a x c", "y z", "e"])
    assert (found.words, found.substituted, found.deleted, found.inserted) == (5, 1, 1, 2)
    assert found.rate == 4 / 5
    assert score.errors([""], [""]).rate == 0 and score.errors([""], ["a"]).rate == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", 'path,client,sentence\na.wav,7,"Turn left, now"\n'),
        ("m.tsv", "audio\ttext\na.wav\tTurn left, now\n"),
        ("m.jsonl", '{"audio_filepath": "a.wav", "duration": 1.5, "text": "Turn left, now"}\n\n'),
        ("m.json", '[{"file": "a.wav", "reference": "Turn left, now"}]'),
        ("m.json", '{"file": "a.wav", "reference": "Turn left, now"}'),
    ],
)
def test_manifests_of_other_programs(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text("\ufeff" + content, encoding="utf-8")
    assert manifest.read(tmp_path / name) == [manifest.Entry(tmp_path / "a.wav", "Turn left, now")]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.json", "[]", "names no recording"),
        ("m.json", "{", "neither JSON nor JSON lines"),
        ("m.json", '["a.wav"]', "entry 1 is str"),
        ("m.json", '[{"audio": "a.wav"}]', "entry 1 names not what is said"),
        ("m.csv", "name,text\na,b\n", "entry 1 names not a recording"),
        ("m.csv", None, "can't be read"),
    ],
)
def test_what_is_no_manifest_is_said(tmp_path: Path, name: str, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(XdnaError, match=reason):
        manifest.read(tmp_path / name)


def test_combinations_that_do_not_exist_are_said(listed: Path) -> None:
    result = run(listed, "--device", "emulator", "--precision", "fp32")
    assert "no device of emulator computes in fp32" in str(result.exception)
    result = run(listed, "--picture", "out.jpeg")
    assert "ends in none of" in str(result.exception)
