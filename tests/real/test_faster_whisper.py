"""faster-whisper with our encoder: OpenAI's weights, real recordings, everything that its users ask of it."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import jiwer
import numpy as np
import pytest

import torch_xdna
from torch_xdna.errors import DeviceError, SettingsError, XdnaError
from torch_xdna.speech.audio import read

pytest.importorskip("faster_whisper")

from torch_xdna.integrations import faster_whisper as ours

DATA = Path(__file__).parent / "data"
JFK, SPANISH, TED, HOTWORDS = (
    DATA / name for name in ("jfk.flac", "es_test_clip.wav", "ted_60.m4a", "hotwords.mp3")
)
ASKED = "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
SPOKEN = "Esta es una grabación de LibriVox. Todas las grabaciones de LibriVox son del dominio público."
GREEDY = {"beam_size": 1, "temperature": 0.0}


def said(segments: Iterator) -> str:
    return "".join(segment.text for segment in segments).strip()


def plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum() or c.isspace())


@pytest.fixture(scope="module")
def model(base_ct2: Path) -> ours.WhisperModel:
    return ours.WhisperModel(str(base_ct2), device="emulator", compute_type="int8")


@pytest.fixture(scope="module")
def theirs(base_ct2: Path) -> ours.WhisperModel:
    """The same folder on CTranslate2 alone."""
    return ours.WhisperModel(str(base_ct2), device="cpu", compute_type="int8")


def test_known_words_in_two_languages(model) -> None:
    segments, info = model.transcribe(str(JFK), **GREEDY)
    assert plain(said(segments)) == plain(ASKED) and info.language == "en"
    segments, info = model.transcribe(str(SPANISH), **GREEDY)
    assert said(segments) == SPOKEN and info.language == "es" and info.language_probability > 0.9


def test_the_array_hears_the_same(tiny_en_ct2: Path) -> None:
    """The very instruction words that an NPU would get."""
    found = ours.WhisperModel(str(tiny_en_ct2), device="array", compute_type="float32")
    segments, _ = found.transcribe(str(JFK), **GREEDY)
    assert plain(said(segments)) == plain(ASKED)


def test_hidden_states_are_theirs_but_for_bf16(model, base_ct2: Path) -> None:
    """Theirs in float32: in int8 they are off by 0.08."""
    float32 = ours.WhisperModel(str(base_ct2), device="cpu", compute_type="float32")
    features = model.feature_extractor(read(TED, 16_000)[: 30 * 16_000])[:, :3000]
    exact, found = np.asarray(float32.encode(features)), np.asarray(model.encode(features))
    assert found.shape == exact.shape == (1, 1500, 512) and found.dtype == np.float32
    assert np.linalg.norm(found - exact) / np.linalg.norm(exact) < 0.03


def test_batches_voice_detection_and_word_times(model, theirs) -> None:
    options = {"batch_size": 4, "word_timestamps": True, "beam_size": 1}
    words = []
    for one in (model, theirs):
        segments, info = ours.BatchedInferencePipeline(model=one).transcribe(str(TED), **options)
        words.append([word for segment in segments for word in segment.words])
        assert info.duration_after_vad <= info.duration == pytest.approx(60, abs=0.5)
    texts = ["".join(word.word for word in found) for found in words]
    assert jiwer.wer(plain(texts[1]), plain(texts[0])) < 0.03
    times = [moment for word in words[0] for moment in (word.start, word.end)]
    assert times == sorted(times) and times[-1] <= 60.5
    at = {plain(word.word).strip(): word.start for word in words[1]}
    shifts = [
        abs(w.start - at[key])
        for w in words[0]
        if (key := plain(w.word).strip()) in ("college", "government")
    ]
    assert len(shifts) == 2 and max(shifts) < 0.25


def test_hotwords_reach_the_decoder(model) -> None:
    segments, _ = model.transcribe(str(HOTWORDS), hotwords="ComfyUI", **GREEDY)
    assert "ComfyUI" in said(segments)


def test_files_of_two_languages(model) -> None:
    both = np.concatenate([read(JFK, 16_000), np.zeros(20 * 16_000, np.float32), read(SPANISH, 16_000)])
    segments, info = model.transcribe(both, multilingual=True, condition_on_previous_text=False, **GREEDY)
    text = said(segments)
    assert "country" in text and "LibriVox" in text and "dominio" in text and info.language == "en"


def test_language_detection_alone(model) -> None:
    language, chance, every = model.detect_language(read(SPANISH, 16_000))
    assert language == "es" and chance > 0.9 and len(every) == 99


def test_threads_share_a_model(base_ct2: Path) -> None:
    found = ours.WhisperModel(str(base_ct2), device="emulator", compute_type="int8", num_workers=2)
    texts: dict[int, str] = {}

    def work(number: int) -> None:
        segments, _ = found.transcribe(str((JFK, SPANISH)[number % 2]), **GREEDY)
        texts[number] = said(segments)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plain(texts[0]) == plain(texts[2]) == plain(ASKED) and texts[1] == texts[3] == SPOKEN


def test_a_model_in_memory(tiny_en_ct2: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_en_ct2.iterdir()}
    files["model.bin"] = (tiny_en_ct2 / "model.bin").open("rb")  # type: ignore[assignment]
    found = ours.WhisperModel("tiny.en", device="emulator", compute_type="int8", files=files)
    files["model.bin"].close()  # type: ignore[attr-defined]
    segments, _ = found.transcribe(str(JFK), **GREEDY)
    assert plain(said(segments)) == plain(ASKED)


def test_a_device_that_fails_gives_the_work_to_ctranslate2_and_says_so(model, theirs, monkeypatch) -> None:
    def broken(mel):
        raise DeviceError("no answer from the NPU within 5 s")

    monkeypatch.setattr(model, "xdna_encoder", broken)
    monkeypatch.setattr(model, "_failed", False)
    with pytest.warns(UserWarning, match="runs in CTranslate2 on the CPU, because no answer"):
        segments, _ = model.transcribe(str(JFK), **GREEDY)
        text = said(segments)
    segments, _ = theirs.transcribe(str(JFK), **GREEDY)
    assert text == said(segments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was said
        model.encode(np.zeros((80, 3000), np.float32))
    monkeypatch.setattr(model, "fallback", "error")
    with pytest.raises(DeviceError, match="no answer"):
        model.encode(np.zeros((80, 3000), np.float32))


@pytest.mark.parametrize("device", ["cpuu", "gpu"])
def test_unknown_devices_are_named(device: str) -> None:
    with pytest.raises(SettingsError, match=rf"no device '{device}'.*npu.*cpu"):
        ours.WhisperModel("base", device=device)


def test_folders_that_are_no_ctranslate2_model(tmp_path: Path, tiny_en_ct2: Path) -> None:
    with pytest.raises(XdnaError, match=r"holds no model\.bin.*ct2-transformers-converter"):
        ours.WhisperModel(str(tmp_path), device="emulator")
    whole = (tiny_en_ct2 / "model.bin").read_bytes()
    for content, reason in (
        (b"", "cut off"),
        (whole[:1_000_000], "cut off"),
        (whole[:2], "cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"\5\0\0\0" + whole[4:1000], "version 5"),
    ):
        (tmp_path / "model.bin").write_bytes(content)
        with pytest.raises(XdnaError, match=reason):
            ours.WhisperModel(str(tmp_path), device="emulator")


def test_features_of_another_shape_are_refused(model) -> None:
    for shape in ((128, 3000), (80, 3001), (80, 3002), (1, 1, 80, 3000)):
        with pytest.raises(XdnaError, match="can't take features of shape"):
            model.encode(np.zeros(shape, np.float32))


def test_it_takes_what_theirs_takes() -> None:
    """Every argument of their constructor, by name and default."""
    import faster_whisper

    their = inspect.signature(faster_whisper.WhisperModel.__init__).parameters
    mine = inspect.signature(ours.WhisperModel.__init__).parameters
    for name, parameter in their.items():
        assert name in mine and mine[name].default == parameter.default, name


WITHOUT_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Block())
from torch_xdna.integrations.faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="array", compute_type="int8", encoder=sys.argv[2])
segments, _ = model.transcribe(sys.argv[3], beam_size=1, temperature=0.0)
print("".join(segment.text for segment in segments).strip())
assert not {"torch", "transformers"} & set(sys.modules)
"""


def test_a_machine_that_only_transcribes_needs_no_torch(tiny_en_ct2: Path, tmp_path: Path) -> None:
    """An exported encoder and CTranslate2's decoder."""
    exported = torch_xdna.export(tiny_en_ct2, tmp_path / "tiny.en.xdna")
    command = [sys.executable, "-c", WITHOUT_TORCH, tiny_en_ct2, exported, JFK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert plain(done.stdout).strip() == plain(ASKED)
    with pytest.raises(SettingsError, match="runs on npu or array, not on 'emulator'"):
        ours.WhisperModel(str(tiny_en_ct2), device="emulator", encoder=exported)
