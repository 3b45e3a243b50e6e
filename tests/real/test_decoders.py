"""OpenAI's weights through both decoders: the same words, words at their times, prompts, shortened contexts."""

from __future__ import annotations

import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from torch_xdna.cli import transcribe
from torch_xdna.speech import opening, transcriber
from torch_xdna.speech.audio import read
from torch_xdna.speech.windows import Window, windows

pytest.importorskip("faster_whisper")

DATA = Path(__file__).parent / "data"
JFK, SPANISH, TED, HOTWORDS = (
    DATA / name for name in ("jfk.flac", "es_test_clip.wav", "ted_60.m4a", "hotwords.mp3")
)
RATE = 16_000
# Seconds at which jfk.flac begins to say them, read off the waveform's envelope to a tenth.
HEARD = {"And": 0.3, "ask": 3.3, "not": 4.0, "what": 5.4}


def plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum() or c.isspace())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(transcribe.command, [*map(str, arguments), "--device", "emulator"])


def said(found: transcriber.Transcriber, cut: list[Window]) -> str:
    return " ".join(segment.text for segments in found.transcribe(cut) for segment in segments)


@pytest.fixture(scope="module")
def _own_torch():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_int8_and_hugging_faces_fp32_write_the_same_words(base: Path, _own_torch) -> None:
    """What is known to differ is a comma; the words must not."""
    whole = [list(windows(iter([read(path, RATE)]), RATE, 30.0)) for path in (JFK, SPANISH, HOTWORDS)]
    ct2 = opening.load(base, decoder="ctranslate2", device="emulator")
    fast = [said(ct2, cut) for cut in whole]
    assert ct2.decoder is not None and ct2.decoder.name == "ctranslate2"
    hf = opening.load(base, device="emulator")
    assert [plain(text) for text in fast] == [plain(said(hf, cut)) for cut in whole]
    hf.word_times = ct2.word_times = True
    for found in (ct2, hf):
        ((segment, *_),) = found.transcribe(whole[0])
        words = {word.text: word.start for word in reversed(segment.words)}
        assert segment.text == " ".join(word.text for word in segment.words)
        assert {word: words[word] for word in HEARD} == pytest.approx(HEARD, abs=0.2)
        times = [moment for word in segment.words for moment in (word.start, word.end)]
        assert times == sorted(times) and segment.start <= times[0] and times[-1] <= segment.end


def test_a_folder_of_ctranslate2s_is_a_model_on_the_command_line(base_ct2: Path) -> None:
    result = run(JFK, SPANISH, HOTWORDS, "--model", base_ct2, "--hotwords", "ComfyUI", "--word-timestamps",
                 "--format", "json")  # fmt: skip
    assert result.exit_code == 0, (result.stderr, result.exception)
    jfk, spanish, named = map(json.loads, result.stdout.splitlines())
    assert jfk["language"] == "en" and plain(jfk["text"]).endswith("ask what you can do for your country")
    assert spanish["language"] == "es" and "grabación de LibriVox" in spanish["text"]
    assert "ComfyUI" in named["text"] and named["segments"][0]["words"][0]["text"] == "Then"
    assert "encoder: 1 region on emulator, context 1500" in result.stderr


def test_hugging_faces_decoder_can_not_read_ctranslate2s_files(tiny_en_ct2: Path) -> None:
    result = run(JFK, "--model", tiny_en_ct2, "--decoder", "hf")
    assert "is in CTranslate2's format" in str(result.exception)


def test_a_shortened_context_keeps_the_words_and_never_loops(base_ct2: Path) -> None:
    """base says one sentence again and again in two of these windows, unless they are heard anew with all padding."""
    found = opening.load(base_ct2, decoder="auto", device="emulator")
    cut = list(windows(iter([read(TED, RATE)]), RATE, 8.0))
    whole = said(found, cut)
    found.short_context = True
    short = " ".join(said(found, [window]) for window in cut)
    assert jiwer.wer(plain(whole), plain(short)) < 0.06
    assert found.encoder is not None and 600 in found.encoder._runs


def test_beams_and_batches_end_well(base_ct2: Path) -> None:
    found = opening.load(base_ct2, decoder="auto", device="emulator")
    cut = list(windows(iter([read(TED, RATE)]), RATE, 20.0))
    greedy = said(found, cut)
    found.beam_size = 3
    assert jiwer.wer(plain(greedy), plain(said(found, cut))) < 0.1
    found.beam_size = 1
    assert plain(" ".join(said(found, [window]) for window in cut)) == plain(greedy)
    silence = Window(0.0, np.zeros(RATE, np.float32), RATE)
    assert found.transcribe([silence]) == [[]]


def test_a_prompt_too_long_is_cut_and_a_prompt_is_not_said(base_ct2: Path) -> None:
    found = opening.load(base_ct2, decoder="auto", device="emulator")
    found.prompt = "The president speaks. " * 200
    found.hotwords = "Kennedy"
    text = said(found, [Window(0.0, read(JFK, RATE), RATE)])
    assert "fellow" in text and "president" not in text
