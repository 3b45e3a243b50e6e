"""The encoder's weights in every form that CTranslate2 writes, its own converter's files; what is not whole is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from torch_xdna import speech
from torch_xdna.encoder import Encoder, ct2
from torch_xdna.encoder.weights import Ct2Weights
from torch_xdna.errors import DeviceError, XdnaError
from torch_xdna.lowering.whisper import encoder_region

converters = pytest.importorskip("ctranslate2.converters")

# Largest difference of a weight to the largest weight of its matrix.
ROUNDING = {None: 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8, "int16": 2.0**-10, "int8": 1 / 254 * 1.01}


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, np.ndarray]:
    model = WhisperForConditionalGeneration.from_pretrained(speech.CHECKPOINT, dtype=torch.float32)
    return {name: value.numpy() for name, value in model.model.encoder.state_dict().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model as CTranslate2's converter writes it."""
    return _converted(tmp_path_factory.mktemp("ct2") / "model", None)


def _converted(path: Path, quantization: str | None) -> Path:
    converters.TransformersConverter(speech.CHECKPOINT).convert(str(path), quantization=quantization)
    return path


@pytest.mark.parametrize("quantization", ROUNDING)
def test_every_weight_is_the_checkpoints(
    checkpoint: dict[str, np.ndarray], tmp_path: Path, quantization: str | None
) -> None:
    found = Ct2Weights.read(_converted(tmp_path / "model", quantization))
    assert set(found) == set(checkpoint) and len(found) == len(checkpoint)
    for name, value in checkpoint.items():
        assert found[name].dtype == np.float32 and found[name].shape == value.shape
        assert np.abs(found[name] - value).max() <= ROUNDING[quantization] * np.abs(value).max(), name


def test_names_and_shapes_are_the_regions(folder: Path) -> None:
    found = Ct2Weights.read(folder)
    region = encoder_region(found.config, found.context)
    assert {p.name: p.shape for p in region.params} == {name: found[name].shape for name in found}


def test_the_encoder_is_the_compiled_one_to_the_bit(folder: Path) -> None:
    """Numpy's door and torch.compile's lead to the same region with the same weights."""
    torch._dynamo.reset()
    model = WhisperForConditionalGeneration.from_pretrained(speech.CHECKPOINT, dtype=torch.float32).eval()
    model.model.encoder.compile(backend="xdna", options={"device": "emulator"})
    mel = np.random.default_rng(0).standard_normal((2, model.config.num_mel_bins, 1000)).astype(np.float32)
    with torch.inference_mode():
        expected = model.model.encoder(torch.from_numpy(mel)).last_hidden_state.float().numpy()
    torch._dynamo.reset()
    encoder = Encoder.from_ct2(folder, device="emulator")
    np.testing.assert_array_equal(encoder(mel), expected)
    np.testing.assert_array_equal(encoder(mel[0]), expected[:1])
    assert encoder(mel[:, :, :200]).shape == (2, 100, model.config.d_model)
    assert encoder(mel[:0]).shape == (0, 500, model.config.d_model)


def test_only_so_many_lengths_are_kept(folder: Path) -> None:
    encoder = Encoder.from_ct2(folder, device="emulator")
    mel = np.zeros((1, encoder.config.mel, 1000), np.float32)
    for frames in (100, 200, 300, 400, 100, 500):
        encoder(mel[:, :, :frames])
    assert list(encoder._runs) == [150, 200, 50, 250]  # contexts, the youngest last


@pytest.mark.parametrize("missing", ["encoder/conv1/weight", "encoder/layer_1/ffn/linear_1/bias"])
def test_what_is_missing_is_named(folder: Path, missing: str) -> None:
    found = ct2.variables(folder / "model.bin")
    del found[missing]
    with pytest.raises(XdnaError, match=f"{missing} is missing"):
        Ct2Weights.of(found, "here")


def test_unknown_types_specifications_and_files_are_said(tmp_path: Path) -> None:
    def string(text: str) -> bytes:
        return (len(text) + 1).to_bytes(2, "little") + text.encode() + b"\0"

    one = (1).to_bytes(4, "little")
    head = (6).to_bytes(4, "little") + string("WhisperSpec") + one + one
    for content, reason in (
        (head + string("w") + b"\0" + b"\x09" + one + b"\0", "w is of the unknown type 9"),
        ((6).to_bytes(4, "little") + string("TransformerSpec") + one, "a TransformerSpec and no Whisper"),
        (b"", "cut off"),
    ):
        with pytest.raises(XdnaError, match=reason):
            ct2.parsed(content, "model.bin")
    with pytest.raises(XdnaError, match="can't be read"):
        ct2.variables(tmp_path / "none")


def test_devices_that_do_not_exist_are_named(folder: Path) -> None:
    with pytest.raises(DeviceError, match="no device 'gpu'"):
        Encoder.from_ct2(folder, device="gpu")
