"""The real engine: what it says of a device that fails in the middle of its work, of prompts and of chance."""

from __future__ import annotations

import pytest
import torch

from torch_xdna import speech
from torch_xdna.devices.emulator.executable import EmulatorExecutable
from torch_xdna.errors import DeviceError
from torch_xdna.speech.audio import read
from torch_xdna.speech.engine import Wanted
from torch_xdna.speech.heard import Heard
from torch_xdna.speech.whisper_engine import WhisperEngine, load
from torch_xdna.speech.windows import Window

CLIPS = speech.clips()[:2]


@pytest.fixture(scope="module")
def engine():
    torch._dynamo.reset()
    yield load(None, None, "emulator")
    torch._dynamo.reset()


def windows(engine: WhisperEngine) -> list[Window]:
    return [Window(0.0, read(clip.path, engine.rate), engine.rate) for clip in CLIPS]


def texts(found) -> list[str]:
    return [" ".join(segment.text for segment in segments) for segments in found]


def test_a_device_that_fails_midway(engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = [Heard(), Heard()]
    ran = engine.run(windows(engine), heard, Wanted())
    assert (texts(ran.found), ran.devices) == ([clip.text for clip in CLIPS], ("emulator",))
    before = sum(engine.failures().values())

    def broken(self, inputs, packed):
        raise DeviceError("the device was unplugged")

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="was unplugged"):
        patch.setattr(EmulatorExecutable, "run", broken)
        ran = engine.run(windows(engine), heard, Wanted())
    assert (texts(ran.found), ran.devices) == ([clip.text for clip in CLIPS], ("emulator", "cpu"))
    assert sum(engine.failures().values()) > before
    assert engine.run(windows(engine), heard, Wanted()).devices == ("emulator",)


def test_temperature(engine: WhisperEngine) -> None:
    """Words are drawn by chance, though not for those who ask next."""
    drawn = {
        tuple(texts(engine.run(windows(engine), [Heard(), Heard()], Wanted(temperature=1.0)).found))
        for _ in range(5)
    }
    assert len(drawn) > 1
    assert texts(engine.run(windows(engine), [Heard(), Heard()], Wanted()).found) == [
        clip.text for clip in CLIPS
    ]


def test_languages(engine: WhisperEngine) -> None:
    assert engine.language("English") == "en" and engine.language("klingon") is None
