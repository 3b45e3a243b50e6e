"""Folders with OpenAI's weights, or a skip that says why they can't be had."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import real_models
import torch


@pytest.fixture(scope="session", autouse=True)
def _no_hub():
    """Nothing here may ask the hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(autouse=True, scope="module")
def _own_compiles():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _folder(name: str, get: Callable[[str], Path] = real_models.folder) -> Path:
    try:
        return get(name)
    except real_models.Unavailable as reason:
        pytest.skip(f"no weights of whisper-{name}: {reason}")


@pytest.fixture(scope="session")
def tiny_en() -> Path:
    return _folder("tiny.en")


@pytest.fixture(scope="session")
def base() -> Path:
    return _folder("base")


@pytest.fixture(scope="session")
def tiny_en_ct2() -> Path:
    return _folder("tiny.en", real_models.ct2_folder)


@pytest.fixture(scope="session")
def base_ct2() -> Path:
    return _folder("base", real_models.ct2_folder)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a model's folder with the entries of some JSON files set, or removed where the value is None."""

    def change(folder: Path, **files: dict | None) -> Path:
        copy = tmp_path / "model"
        copy.mkdir()
        for file in folder.iterdir():
            if file.suffix == ".safetensors":
                (copy / file.name).symlink_to(file)
            else:
                shutil.copy(file, copy)
        for name, entries in files.items():
            path = copy / f"{name}.json"
            if entries is None:
                path.unlink()
                continue
            found = {**json.loads(path.read_text()), **entries}
            path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
        return copy

    return change
