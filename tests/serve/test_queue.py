"""Many clients and one model: what shares a batch, whose turn it is, and what becomes of those that can't be served."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import requests
from scripted import tone
from servers import Asking, Running, soon

from torch_xdna.errors import XdnaError

Start = Callable[..., Running]


def asked_together(server: Running, *recordings: bytes, **more: str) -> list[Asking]:
    """Requests that all wait behind one that runs."""
    server.engine.gate.clear()
    first = server.asking(tone(990))
    soon(server.engine.running.is_set)
    rest = []
    for number, recording in enumerate(recordings):  # one after another, so that their order is known
        rest.append(server.asking(recording, **more))
        soon(lambda n=number: server.server.queue.state()["jobs"] == n + 2)
        soon(lambda n=number: server.server.queue.state()["windows_read_ahead"] > n)
    server.engine.gate.set()
    assert first.answer().json()["text"] == "990"
    return rest


def test_those_that_wait_share_batches(start: Start) -> None:
    server = start(batch_size=3)
    pitches = [100, 200, 300, 400, 500]
    answers = asked_together(server, *map(tone, pitches))
    assert [a.answer().json()["text"] for a in answers] == ["100", "200", "300", "400", "500"]
    assert [found for found, _ in server.engine.batches] == [[990], [100, 200, 300], [400, 500]]


def test_only_those_that_ask_the_same_share(start: Start) -> None:
    server = start()
    server.engine.gate.clear()
    first = server.asking(tone(990))
    soon(server.engine.running.is_set)
    more = [
        {"language": "es"},
        {"language": "en"},
        {"language": "es"},
        {"prompt": "Ana"},
        {"temperature": "0.5"},
    ]
    rest = []
    for number, fields in enumerate(more):
        rest.append(server.asking(tone(100 * (number + 1)), **fields))
        soon(lambda n=number: server.server.queue.state()["windows_read_ahead"] > n)
    server.engine.gate.set()
    assert [a.answer().json()["text"] for a in [first, *rest]] == ["990", "100", "200", "300", "400", "500"]
    batches = [
        (pitches, asked.language, asked.prompt, asked.temperature) for pitches, asked in server.engine.batches
    ]
    assert batches == [
        ([990], None, "", 0),
        ([100, 300], "es", "", 0),
        ([200], "en", "", 0),
        ([400], None, "Ana", 0),
        ([500], None, "", 0.5),
    ]


def test_a_long_recording_lets_short_ones_through(start: Start) -> None:
    server = start(batch_size=2)
    server.engine.gate.clear()
    long = server.asking(tone(700, 95))
    soon(server.engine.running.is_set)
    short = server.asking(tone(100))
    soon(lambda: server.server.queue.state()["jobs"] == 2)
    time.sleep(0.1)
    server.engine.gate.set()
    assert short.answer().json()["text"] == "100"
    assert set(long.answer().json()["text"].split()) == {"700"}
    order = [pitch for pitches, _ in server.engine.batches for pitch in pitches]
    assert order.index(100) <= 4 and order.count(700) >= 10


def test_full(start: Start) -> None:
    server = start(jobs=2)
    server.engine.gate.clear()
    waiting = [server.asking(tone(100)), server.asking(tone(200))]
    soon(lambda: server.server.admitted == 2)
    refused = server.ask(tone(300, 60))  # 2 MB: all of it is sent, and the answer still heard
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["type"] == "rate_limit_error"
    server.engine.gate.set()
    assert {a.answer().json()["text"] for a in waiting} == {"100", "200"}
    server.works()


def test_who_leaves_frees_its_work(start: Start) -> None:
    server = start(batch_size=1)
    server.engine.gate.clear()
    running = server.asking(tone(100))
    soon(server.engine.running.is_set)
    for _ in range(3):
        with requests.Session() as session, contextlib.suppress(requests.exceptions.Timeout):
            session.post(server.address + "/inference", files={"file": ("", tone(200, 200))}, timeout=0.3)
    soon(lambda: server.server.admitted == 1)
    assert server.server.queue.state()["jobs"] == 1
    server.engine.gate.set()
    assert running.answer().json()["text"] == "100"
    soon(server.is_idle)
    assert [pitches for pitches, _ in server.engine.batches] == [[100]]


def test_who_leaves_a_stream_frees_its_work(start: Start) -> None:
    server = start(batch_size=1)
    answer = server.ask(tone(300, 60), stream="true", reading_later=True)
    server.engine.gate.clear()
    lines = answer.iter_lines()
    assert next(lines) == b"event: transcript.text.delta"
    answer.close()
    soon(lambda: server.server.admitted == 0)
    server.engine.gate.set()
    soon(server.is_idle)
    assert len(server.engine.batches) < 6


def test_one_that_fails_does_not_take_others_down(start: Start) -> None:
    server = start(batch_size=4)
    server.engine.fails = {
        200: XdnaError("this one can't be heard"),
        400: ZeroDivisionError("secret \n words"),
    }
    answers = [a.answer() for a in asked_together(server, *(tone(p) for p in (100, 200, 300, 400)))]
    assert [a.status_code for a in answers] == [200, 500, 200, 500]
    assert answers[1].json()["error"]["message"] == (
        "0.00 s to 1.00 s can't be transcribed: this one can't be heard"
    )
    assert "ZeroDivisionError" in answers[3].text and "secret" not in answers[3].text
    soon(server.is_idle)
    server.works()


def test_a_stream_that_fails_midway(start: Start) -> None:
    import io

    import openai
    import pytest
    import soundfile

    parts = [soundfile.read(io.BytesIO(tone(pitch, 10)))[0] for pitch in (100, 200)]
    both = io.BytesIO()
    soundfile.write(both, [*parts[0], *parts[1]], 16_000, format="WAV")
    server = start(batch_size=1)
    server.engine.fails = {200: XdnaError("it broke")}
    client = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
    with client, pytest.raises(openai.APIError, match="it broke"):
        for event in client.audio.transcriptions.create(model="toy", file=both.getvalue(), stream=True):
            assert event.delta == "100"
    soon(server.is_idle)


def test_what_takes_too_long(start: Start) -> None:
    server = start(request_seconds=0.3)
    server.engine.gate.clear()
    answer = server.ask(tone(100))
    assert answer.status_code == 504 and "0 s" in answer.json()["error"]["message"]
    server.engine.gate.set()
    soon(server.is_idle)
    server.works()


def test_a_device_that_falls_back_is_told(start: Start) -> None:
    server = start()
    assert server.ask(tone(100)).headers["x-torch-xdna-device"] == "npu"
    server.engine.falls_back = True
    assert server.ask(tone(100)).headers["x-torch-xdna-device"] == "npu, cpu"
    assert '"device": "npu, cpu"' in server.ask(tone(100), stream="true").text
    health = server.health()
    assert health["windows"] == {"npu": 3, "cpu": 2}
    assert "because it is scripted" in next(iter(health["failures"]))
    assert (
        'torch_xdna_windows_total{device="cpu"} 2.0'
        in requests.get(server.address + "/metrics", timeout=9).text
    )


def test_damage_is_told_to_its_own_client(start: Start) -> None:
    """The reader's warning about a recording reaches whoever sent it, and no one else."""
    import io

    import numpy as np
    import soundfile

    swapped = io.BytesIO()
    mono = soundfile.read(io.BytesIO(tone(100)))[0]
    soundfile.write(swapped, np.stack([mono, -mono], axis=1), 16_000, format="WAV")
    server = start()
    import warnings

    from torch_xdna.serve.queue import tell_warnings

    warnings.showwarning = tell_warnings(server.server.queue)
    told = server.ask(swapped.getvalue())
    assert told.headers["x-torch-xdna-note"].startswith("the recording: the channels cancel each other")
    assert "x-torch-xdna-note" not in server.ask(tone(100)).headers


def test_many_at_once(start: Start) -> None:
    server = start(jobs=200)
    found: dict[int, str] = {}

    def client(pitch: int) -> None:
        for _ in range(3):
            found[pitch] = server.ask(tone(pitch)).json()["text"]

    threads = [threading.Thread(target=client, args=(50 + 10 * n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {50 + 10 * n: str(50 + 10 * n) for n in range(40)}
    soon(server.is_idle)
