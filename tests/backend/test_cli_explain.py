"""`torch-xdna explain` and `torch-xdna devices`."""

from __future__ import annotations

import json

from click.testing import CliRunner
from transformers import BertConfig, WhisperConfig

from torch_xdna.cli import cli


def run(*args: str):
    return CliRunner().invoke(cli, args)


def small_config(**changes) -> WhisperConfig:
    sizes = dict(d_model=128, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=256)
    return WhisperConfig(**{**sizes, "max_source_positions": 50, **changes})


def test_explain_a_folder_as_json(tmp_path):
    small_config().save_pretrained(tmp_path)
    result = run("explain", str(tmp_path), "--json", "--batch-size", "2", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["summary"] == "encoder: 1 region, 0 eager ops"
    assert report["graphs"][0]["rows"][0]["dtype"] == "bfloat16"
    assert report["graphs"][0]["rows"][0]["shape"] == [2, 128, 100]


def test_explain_a_size_as_a_table():
    result = run("explain", "tiny", "--attention", "eager", "--regions")
    assert result.exit_code == 0, result.output
    assert "encoder: 1 region, 0 eager ops" in result.output
    assert "layers.3.fc2" in result.output and "part of attention" in result.output
    assert "region encoder\n  input %0:args.0[3000x80]\n" in result.output


def test_explain_says_what_stays_eager(tmp_path):
    small_config(encoder_attention_heads=4).save_pretrained(tmp_path)  # head size 32
    result = run("explain", str(tmp_path), "--json")
    report = json.loads(result.output)
    assert report["regions"] > 1 and report["eager_ops"] > 0
    rows = report["graphs"][0]["rows"]
    assert any("head size is 32, the device's attention has 64" in row["reason"] for row in rows)


def test_explain_mistakes(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    for argument, words in (
        (str(tmp_path), "a model of type 'bert'"),
        (str(tmp_path / "no" / "where"), "there is no folder"),
    ):
        result = run("explain", argument)
        assert result.exit_code != 0 and words in str(result.exception)


def test_devices():
    table = run("devices")
    assert table.exit_code == 0 and "emulator" in table.output
    listed = json.loads(run("devices", "--json").output)
    assert {d["name"] for d in listed["devices"]} == {"npu", "emulator", "array"}
    emulator = next(d for d in listed["devices"] if d["name"] == "emulator")
    assert emulator["usable"] and emulator["reason"] is None
    npu = next(d for d in listed["devices"] if d["name"] == "npu")
    assert listed["auto"] == ("npu" if npu["usable"] else "emulator")
