"""Checkpoints that are not whole, or parts of different ones: one sentence that names what is missing, exit code 2."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from torch_xdna import speech
from torch_xdna.cli import main
from torch_xdna.errors import XdnaError
from torch_xdna.speech.loading import load_whole

WEIGHTS = "model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 2692736\n"


def entries(name: str, *path: str, **changes: object) -> Callable[[Path], None]:
    """Sets entries of a JSON file, of the object at `path` in it; None removes."""

    def change(folder: Path) -> None:
        content = found = json.loads((folder / name).read_text())
        for key in path:
            found = found[key]
        found.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del found[key]
        (folder / name).write_text(json.dumps(content))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, metadata={"format": "pt"})

    return changed


def file(name: str, content: str | bytes | None) -> Callable[[Path], None]:
    """Writes a file, or removes it."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def cut(name: str, share: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def sharded(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def tokenizer(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return changed


def one_id_earlier(content: dict) -> None:
    """As an English-only tokenizer is to a multilingual one."""
    text = content["model"]["vocab"]
    last = max(text, key=lambda token: text[token])
    content["model"]["merges"] = [m for m in content["model"]["merges"] if "".join(m) != last]
    del text[last]
    for token in content["added_tokens"]:
        token["id"] -= 1
        if token["content"] in text:
            text[token["content"]] -= 1


def without_words(content: dict) -> None:
    text = content["model"]["vocab"]
    merged = {"".join(merge) for merge in content["model"]["merges"]}
    content["model"]["merges"] = []
    content["model"]["vocab"] = {token: number for token, number in text.items() if token not in merged}


def without_start(content: dict) -> None:
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<|startoftranscript|>"]


def shipped() -> tuple[int, int, int]:
    """Bytes of weights; tokens without its merged words; rows of the embedding."""
    folder = Path(speech.CHECKPOINT)
    content = json.loads((folder / "tokenizer.json").read_text())
    tokens = {token["content"] for token in content["added_tokens"]} | set(content["model"]["vocab"])
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    words = {"".join(merge) for merge in content["model"]["merges"]}
    return (folder / WEIGHTS).stat().st_size, len(tokens - words), rows


BYTES, WORDLESS, ROWS = shipped()
DECODER, ENCODER = "model.decoder.layers.1.", "model.encoder.layers.2."
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (file(WEIGHTS, None), "its weights are missing: there is no model.safetensors"),
    "empty weights": (file(WEIGHTS, b""), "model.safetensors is empty"),
    "pointer": (file(WEIGHTS, POINTER), "model.safetensors is a Git LFS pointer"),
    "cut in the data": (cut(WEIGHTS, 0.9), f"model.safetensors is cut off: {BYTES} bytes are announced"),
    "cut in the header": (cut(WEIGHTS, 0.001), "model.safetensors is cut off"),
    "no safetensors": (
        file(WEIGHTS, b"\x04\0\0\0\0\0\0\0text"),
        "model.safetensors is no safetensors file",
    ),
    "a missing shard": (sharded, "of 2 weight files model-00002-of-00002.safetensors is missing"),
    "a cut pickle": (
        lambda folder: (file(WEIGHTS, None)(folder), file("pytorch_model.bin", b"PK\3\4cut")(folder)),
        "no Whisper model can be loaded",
    ),
    "one weight missing": (
        weights(lambda found: found.pop(f"{DECODER}fc1.weight")),
        f"missing in its files (decoder layer 1): {DECODER}fc1.weight is missing",
    ),
    "a layer missing": (
        weights(lambda found: [found.pop(name) for name in list(found) if name.startswith(ENCODER)]),
        "missing in its files (encoder layer 2)",
    ),
    "more layers configured": (entries("config.json", decoder_layers=3), "(decoder layer 2)"),
    "fewer layers configured": (
        entries("config.json", encoder_layers=2),
        "its files have weights of layers that its configuration does not have (encoder layer 2)",
    ),
    "another width": (entries("config.json", encoder_ffn_dim=256), "do not fit its configuration"),
    "NaN": (
        weights(lambda found: found["model.encoder.conv1.weight"][0, 0].fill_(torch.nan)),
        "its weights hold NaN or infinite values, 3 of 30720 in model.encoder.conv1.weight",
    ),
    "infinite": (
        weights(lambda found: found[f"{DECODER}fc1.bias"][:1].fill_(torch.inf)),
        f"1 of 256 in {DECODER}fc1.bias",
    ),
    "zeros": (
        weights(lambda found: found[f"{DECODER}fc1.weight"].zero_()),
        "is all zeros, as in a placeholder",
    ),
    "no tokenizer": (file("tokenizer.json", None), "its tokenizer is missing: there is no tokenizer.json"),
    "cut tokenizer": (cut("tokenizer.json", 0.5), "tokenizer.json is not valid JSON"),
    "pointer for a tokenizer": (file("tokenizer.json", POINTER), "tokenizer.json is a Git LFS pointer"),
    "ids of another tokenizer": (tokenizer(one_id_earlier), "its tokenizer is another model's"),
    "no words in the tokenizer": (
        tokenizer(without_words),
        f"its tokenizer is another model's: it has {WORDLESS}",
    ),
    "no words in the tokenizer, and no id stated": (
        lambda folder: (
            tokenizer(without_words)(folder),
            entries("config.json", decoder_start_token_id=None, eos_token_id=None)(folder),
        ),
        f"its tokenizer is another model's: it has {WORDLESS} tokens and the model's embedding {ROWS} rows",
    ),
    "no start token": (
        tokenizer(without_start),
        "its tokenizer is another model's: <|startoftranscript|> is",
    ),
    "a smaller embedding": (
        lambda folder: (
            weights(
                lambda found: found.update(
                    {name: found[name][:1400].clone() for name in ["model.decoder.embed_tokens.weight"]}
                )
            )(folder),
            entries("config.json", vocab_size=1400)(folder),
        ),
        "its tokenizer is another model's: its ids reach",
    ),
    "no feature extractor": (
        lambda folder: [file(f"{name}processor_config.json", None)(folder) for name in ("", "pre")],
        "its feature extractor is missing",
    ),
    "other mel bins": (
        entries("processor_config.json", "feature_extractor", feature_size=128),
        "it makes 128 mel bins and the model takes 80",
    ),
    "another length": (
        entries("processor_config.json", "feature_extractor", chunk_length=30),
        "it makes 3000 frames and the model takes 1000",
    ),
    "another rate": (
        entries("processor_config.json", "feature_extractor", sampling_rate=8000),
        "and the model takes 1000",
    ),
    "cut generation config": (cut("generation_config.json", 0.5), "generation_config.json is not valid JSON"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(speech.CHECKPOINT, tmp_path / "model"))


@pytest.mark.parametrize("broken", BROKEN)
def test_one_sentence_and_exit_code_2(
    folder: Path, broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, says = BROKEN[broken]
    change(folder)
    arguments = ["transcribe", speech.clips()[0].path, "--model", str(folder), "--device", "emulator"]
    monkeypatch.setattr("sys.argv", ["torch-xdna", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("torch-xdna: ") and err.count("\n") == 1 and says in err, err


@pytest.fixture
def on_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `somebody/whisper` in a cache as Hugging Face's own downloads leave it; nothing else can be had."""
    cache = tmp_path / "hub" / "models--somebody--whisper"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return Path(shutil.copytree(speech.CHECKPOINT, cache / "snapshots" / ("0" * 40)))


HUB = [
    "pointer", "cut in the data", "a missing shard", "no tokenizer", "pointer for a tokenizer", "cut tokenizer",
    "no feature extractor", "ids of another tokenizer",
]  # fmt: skip


@pytest.mark.parametrize("broken", HUB)
def test_models_of_the_hub_are_looked_at_like_folders(on_hub: Path, broken: str) -> None:
    change, says = BROKEN[broken]
    change(on_hub)
    with pytest.raises(XdnaError, match=re.escape(says)) as error:
        load_whole("somebody/whisper")
    assert str(error.value).startswith("no Whisper model can be loaded from 'somebody/whisper': ")


def test_a_whole_model_of_the_hub_is_loaded(on_hub: Path) -> None:
    (on_hub / "onnx").mkdir()
    (on_hub / "onnx" / "config.json").write_text(POINTER)  # other programs' files are none of ours
    model, _ = load_whole("somebody/whisper")
    assert model.config.d_model == 128


def test_a_name_that_the_hub_does_not_have(on_hub: Path) -> None:
    with pytest.raises(
        XdnaError, match="there is no such folder, and the Hugging Face hub gives no model"
    ) as error:
        load_whole("nobody/nothing")
    assert str(error.value).count("\n") == 0 and str(error.value).endswith(").")
