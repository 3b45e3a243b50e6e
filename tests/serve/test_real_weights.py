"""OpenAI's base on real speech through the server: each interface, a prompt, a translation, a CTranslate2 folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from servers import Process

from torch_xdna.errors import DeviceError
from torch_xdna.speech.audio import read
from torch_xdna.speech.engine import Wanted
from torch_xdna.speech.heard import Heard
from torch_xdna.speech.windows import Window

pytestmark = pytest.mark.slow
REAL = Path(__file__).parents[1] / "real"
JFK, SPANISH, TALK, NAME = (
    REAL / "data" / name for name in ("jfk.flac", "es_test_clip.wav", "ted_60.m4a", "hotwords.mp3")
)
SAID = "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."


def folder(name: str, form: str = "folder") -> Path:
    sys.path.append(str(REAL))
    try:
        import real_models
    finally:
        sys.path.remove(str(REAL))
    try:
        return getattr(real_models, form)(name)
    except real_models.Unavailable as reason:
        pytest.skip(f"no weights of whisper-{name}: {reason}")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    found = Process(tmp_path_factory.mktemp("base"), "--device", "emulator", "--model", str(folder("base")))
    yield found
    assert found.stop() == 0


def test_real_recordings(base: Process) -> None:
    with openai.OpenAI(base_url=base.address + "/v1", api_key="none", max_retries=0) as client:
        create = client.audio.transcriptions.create
        spoken = create(
            model="whisper-1", file=JFK, response_format="verbose_json", timestamp_granularities=["word"]
        )
        assert (spoken.text, spoken.language) == (SAID, "english")
        assert [word.word for word in spoken.words] == SAID.split()
        spanish = create(model="whisper-1", file=SPANISH, response_format="verbose_json")
        assert spanish.language == "spanish" and "dominio público" in spanish.text
        english = client.audio.translations.create(model="whisper-1", file=SPANISH).text
        assert "public domain" in english.lower()
        assert "ComfyUI" not in create(model="whisper-1", file=NAME).text
        assert "ComfyUI" in create(model="whisper-1", file=NAME, prompt="ComfyUI").text
        talk = create(model="whisper-1", file=TALK, stream=True)
        deltas = [event for event in talk if event.type == "transcript.text.delta"]
        assert len(deltas) > 3 and "So in college" in deltas[0].delta


def test_real_recordings_from_a_shell(base: Process) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for path in ("/v1/audio/transcriptions", "/inference"):
        form = ["-F", f"file=@{JFK}", "-F", "temperature=0.0", "-F", "response_format=json"]
        done = subprocess.run(
            ["curl", "-sS", base.address + path, *form], capture_output=True, text=True, timeout=60
        )
        # whisper.cpp's form has a line per segment.
        assert json.loads(done.stdout)["text"].split() == SAID.split()


def test_a_ctranslate2_folder_whose_device_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """No encoder of torch's is there to fall back to: the emulator is."""
    pytest.importorskip("ctranslate2")
    from torch_xdna.encoder.encoder import Encoder
    from torch_xdna.speech.whisper_engine import load

    engine = load(str(folder("tiny.en", "ct2_folder")), None, "emulator")
    window = Window(0.0, read(JFK, engine.rate), engine.rate)
    assert engine.run([window], [Heard()], Wanted()).devices == ("emulator",)
    mine, real = engine.transcriber.encoder, Encoder.__call__

    def broken(self, mel):
        if self is mine:
            raise DeviceError("the device was unplugged")
        return real(self, mel)

    monkeypatch.setattr(Encoder, "__call__", broken)
    with pytest.warns(UserWarning, match="was unplugged"):
        ran = engine.run([window], [Heard()], Wanted())
    assert ran.devices == ("emulator", "cpu") and ran.found[0][0].text.startswith(
        "And so my fellow Americans"
    )
    assert sum(engine.failures().values()) == 1
