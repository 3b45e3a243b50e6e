"""Encoders in one file: the same bits without torch, other files refused in a sentence, pages shared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import WhisperForConditionalGeneration

import torch_xdna
from torch_xdna import speech
from torch_xdna.cli import export as command
from torch_xdna.encoder import Encoder
from torch_xdna.encoder.doors import open_door
from torch_xdna.errors import DeviceError, XdnaError
from torch_xdna.exported import file as files
from torch_xdna.exported.describe import from_json, to_json
from torch_xdna.exported.sources import source

WITHOUT_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Block())
import numpy as np
import torch_xdna
encoder = torch_xdna.load(sys.argv[1], device="array")
np.save(sys.argv[3], encoder(np.load(sys.argv[2])))
assert not {"torch", "transformers"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def model() -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(speech.CHECKPOINT, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def mel(model: WhisperForConditionalGeneration) -> np.ndarray:
    shape = 2, model.config.num_mel_bins, 2 * model.config.max_source_positions
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def exported(model: WhisperForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torch_xdna.export(model, tmp_path_factory.mktemp("exported") / "small.xdna", contexts=[100, 500])


@pytest.fixture(scope="module")
def expected(model: WhisperForConditionalGeneration, mel: np.ndarray) -> np.ndarray:
    """What the array simulator gives the usual way."""
    found = source(model.model.encoder)
    return Encoder(found.config, found.context, found.weights, open_door("array"))(mel)


def test_the_same_bits_where_torch_is_not(
    exported: Path, mel: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "mel.npy", mel)
    command = [sys.executable, "-c", WITHOUT_TORCH, exported, tmp_path / "mel.npy", tmp_path / "out.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


def test_lengths_that_are_there_and_others(exported: Path, mel: np.ndarray) -> None:
    found = torch_xdna.load(exported, device="array")
    assert (found.contexts, found.context, found.mel) == ((100, 500), 500, mel.shape[1])
    assert found(mel[0, :, :200]).shape == (1, 100, found.width) and found(mel[:0]).shape == (
        0,
        500,
        found.width,
    )
    with pytest.raises(XdnaError, match=r"300 frames are not in .* has 200, 1000: .* --context 150"):
        found(mel[:, :, :300])
    with pytest.raises(XdnaError, match="can't take features of shape"):
        found(mel[:, :-1])


def test_the_weights_stay_in_the_file(exported: Path) -> None:
    value = files.File(exported).tensor("weights.500")
    base = value
    while not isinstance(base, np.memmap):
        base = base.base  # type: ignore[assignment]
    assert not value.flags.owndata and not value.flags.writeable


def test_every_way_to_name_an_encoder_leads_to_the_same_weights(model, tmp_path: Path) -> None:
    ways = [model, model.model, model.model.encoder, torch.compile(model.model.encoder), speech.CHECKPOINT]
    converters = pytest.importorskip("ctranslate2.converters")
    converters.TransformersConverter(speech.CHECKPOINT).convert(str(tmp_path / "ct2"))
    first = source(ways[0])
    for way in [*ways[1:], tmp_path / "ct2"]:
        found = source(way)
        assert (found.config, found.context) == (first.config, first.context)
        for name, value in first.weights.items():
            np.testing.assert_array_equal(found.weights[name], value, err_msg=name)
    torch._dynamo.reset()


def test_openai_whispers_encoder(tmp_path: Path) -> None:
    whisper = pytest.importorskip("whisper.model")
    dims = whisper.ModelDimensions(80, 50, 128, 2, 2, 100, 50, 128, 2, 1)
    own = whisper.Whisper(dims)
    found = source(own)
    assert (
        found.context == 50
        and found.config.layers == 2
        and len(found.weights) == len(own.encoder.state_dict())
    )
    assert source(own.encoder).config == found.config


def test_descriptions_come_back(exported: Path) -> None:
    described = files.File(exported).manifest["programs"]["500"]
    for part in ("inputs", "outputs"):
        assert to_json(from_json(described[part])) == described[part]
    with pytest.raises(TypeError, match="no part of a program"):
        to_json(np.zeros(1))


def test_other_files_are_refused_in_a_sentence(exported: Path, tmp_path: Path, monkeypatch) -> None:
    whole, path = exported.read_bytes(), tmp_path / "other.xdna"
    length = int.from_bytes(whole[:8], "little")
    damaged = bytearray(whole)
    damaged[-1_000] ^= 1
    newer = (
        whole[:8]
        + whole[8 : 8 + length].replace(b'\\"format\\": 1', b'\\"format\\": 2')
        + whole[8 + length :]
    )
    older = whole.replace(
        json.dumps(files.File(exported).manifest["overlay"]).encode()[1:-1], b"0123456789ab"
    )
    for content, reason in (
        (b"", "it is empty"),
        (whole[:100], "cut off or was not made by"),
        (whole[:-1], "is cut off: .* bytes are announced"),
        (b"not at all" * 100, "cut off or was not made by"),
        (bytes(damaged), "is damaged"),
        (newer, "has format 2 and this version of torch-xdna reads 1"),
        (older, "exported for the overlay 0123456789ab and this version has"),
    ):
        path.write_bytes(content)
        with pytest.raises(XdnaError, match=reason):
            torch_xdna.load(path, device="array")
    with pytest.raises(XdnaError, match="can't be read"):
        torch_xdna.load(tmp_path / "none.xdna", device="array")
    with pytest.raises(DeviceError, match="runs on npu or array, not on 'emulator'"):
        torch_xdna.load(exported, device="emulator")


def test_what_can_not_be_exported_is_said(model, tmp_path: Path) -> None:
    for encoder, options, reason in (
        (model, {"columns": 3}, "3 columns"),
        (model, {"contexts": [501]}, "context 501 .* 1 to 500"),
        (torch.nn.Linear(2, 2), {}, "a Linear can't be exported: it has no conv1.weight"),
        (7, {}, "a int can't be exported"),
        (tmp_path, {}, "it has no config.json"),
    ):
        with pytest.raises(XdnaError, match=reason):
            torch_xdna.export(encoder, tmp_path / "x.xdna", **options)
    with pytest.raises(XdnaError, match="can't be written"):
        torch_xdna.export(model, tmp_path / "none" / "x.xdna", contexts=[64])
    assert not list(tmp_path.glob(".*"))


def test_the_command(tmp_path: Path) -> None:
    arguments = [speech.CHECKPOINT, "-o", str(tmp_path / "a.xdna"), "--context", "64", "--columns", "1"]
    result = CliRunner().invoke(command.command, arguments)
    assert result.exit_code == 0 and "MB" in result.stdout
    manifest = files.File(tmp_path / "a.xdna").manifest
    assert (
        manifest["columns"] == 1
        and list(manifest["programs"]) == ["64"]
        and len(manifest["source"]["sha256"]) == 64
    )
