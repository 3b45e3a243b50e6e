"""Programs that exist talk to the real server: OpenAI's Python client, curl as a shell user types it, whisper.cpp's
request form."""

from __future__ import annotations

import json
import shutil
import subprocess

import openai
import pytest
from servers import Process

from torch_xdna import speech

CLIP = speech.clips()[0]


@pytest.fixture
def client(process: Process):
    with openai.OpenAI(base_url=process.address + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def clip():
    with open(CLIP.path, "rb") as file:
        yield file


def test_openai_json(client, clip) -> None:
    assert client.audio.transcriptions.create(model="whisper-1", file=clip).text == CLIP.text


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
def test_openai_text(client, clip, form: str) -> None:
    text = client.audio.transcriptions.create(model="torch-xdna", file=clip, response_format=form)
    begins = {"text": CLIP.text, "srt": "1\n00:00:0", "vtt": "WEBVTT\n\n00:00:0"}
    assert text.startswith(begins[form]) and CLIP.text in text


def test_openai_verbose(client, clip) -> None:
    found = client.audio.transcriptions.create(
        model="whisper-1",
        file=clip,
        language="en",
        temperature=0,
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )
    assert (found.text, found.language) == (CLIP.text, "english")
    assert found.duration == pytest.approx(CLIP.seconds, abs=0.01)
    assert "".join(segment.text for segment in found.segments).strip() == CLIP.text
    assert all(0 <= s.start < s.end <= found.duration and s.compression_ratio > 0 for s in found.segments)


def test_openai_words(client, clip) -> None:
    found = client.audio.transcriptions.create(
        model="whisper-1", file=clip, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert [word.word for word in found.words] == CLIP.text.split() and found.segments is None
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= found.duration
    whole = client.audio.transcriptions.create(
        model="whisper-1",
        file=clip,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert whole.words == found.words and whole.segments


def test_openai_stream(client, clip) -> None:
    events = list(client.audio.transcriptions.create(model="whisper-1", file=clip, stream=True))
    assert "".join(e.delta for e in events if e.type == "transcript.text.delta") == CLIP.text
    assert (events[-1].type, events[-1].text) == ("transcript.text.done", CLIP.text)


def test_openai_mistakes(client, clip) -> None:
    create = client.audio.transcriptions.create
    with pytest.raises(openai.BadRequestError, match="is not audio") as error:
        create(model="whisper-1", file=b"no audio at all")
    assert error.value.code == "invalid_audio" and "/proc" not in str(error.value)
    with pytest.raises(openai.NotFoundError, match="no such model"):
        create(model="gpt-9", file=clip)
    with pytest.raises(openai.BadRequestError, match="does not know this language"):
        create(model="whisper-1", file=clip, language="klingon")
    with pytest.raises(openai.BadRequestError, match="from 0 to 1"):
        create(model="whisper-1", file=clip, temperature=7)
    with pytest.raises(openai.BadRequestError, match="response_format must be one of"):
        create(model="whisper-1", file=clip, response_format="doc")


def test_openai_models(client) -> None:
    assert [model.id for model in client.models.list()] == ["torch-xdna"]
    assert client.models.retrieve("torch-xdna").owned_by == "torch-xdna"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def curl(*arguments: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(process: Process) -> None:
    answer = curl("-i", process.address + "/v1/audio/transcriptions", "-F", f"file=@{CLIP.path}")
    head, _, body = answer.partition("\n\n")
    assert "x-torch-xdna-device: emulator" in head
    assert json.loads(body)["text"] == CLIP.text


def test_curl_sends_chunks(process: Process) -> None:
    """From standard input curl does not announce a length."""
    with open(CLIP.path, "rb") as file:
        command = ["curl", "-sS", process.address + "/v1/audio/transcriptions", "-H", "Transfer-Encoding: chunked",
                   "-F", "file=@-", "-F", "response_format=text"]  # fmt: skip
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=60)
    assert done.stdout == CLIP.text + "\n", done.stderr


def test_whisper_cpp(process: Process) -> None:
    """The request that its server's own page shows."""
    form = ("-F", f"file=@{CLIP.path}", "-F", "temperature=0.0", "-F", "temperature_inc=0.2",
            "-F", "no_speech_thold=0.6")  # fmt: skip
    at = process.address + "/inference"
    assert json.loads(curl(at, *form, "-F", "response_format=json")) == {"text": f" {CLIP.text}\n"}
    assert curl(at, *form, "-F", "response_format=text") == f" {CLIP.text}\n"
    whole = json.loads(curl(at, *form, "-F", "response_format=verbose_json", "-F", "language=auto"))
    assert [segment["text"].strip() for segment in whole["segments"]] == [CLIP.text]
    assert [word["word"] for word in whole["segments"][0]["words"]] == CLIP.text.split()
    assert curl(at, *form, "-F", "response_format=srt").startswith("1\n00:00:00,")
    assert "file" in json.loads(curl(at, "-F", "temperature=0.0"))["error"]


def test_health_and_metrics(process: Process) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    curl(process.address + "/inference", "-F", f"file=@{CLIP.path}")
    health = json.loads(curl(process.address + "/health"))
    assert (health["status"], health["model"], health["device"]) == ("ok", "torch-xdna", "emulator")
    assert health["windows"]["emulator"] >= 1 and health["failures"] == {}
    families = {f.name: f for f in text_string_to_metric_families(curl(process.address + "/metrics"))}
    windows = {
        s.labels["device"]: s.value for s in families["torch_xdna_windows"].samples if "device" in s.labels
    }
    assert windows["emulator"] == health["windows"]["emulator"]
    routes = {s.labels["route"] for s in families["torch_xdna_requests"].samples}
    assert "/inference" in routes
