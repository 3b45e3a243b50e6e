"""Windows by the voice detector: where they begin and end, on made-up answers and on real ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from torch_xdna import speech
from torch_xdna.errors import XdnaError
from torch_xdna.speech import voice
from torch_xdna.speech.audio import read
from torch_xdna.speech.voice import FRAME, spoken_windows

RATE = voice.RATE
SECOND = RATE / FRAME  # frames


class Marked:
    """Stands in for the detector: samples above 0.5 are speech."""

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        return samples.reshape(-1, FRAME).max(axis=1)


def stream(*parts: tuple[float, float]) -> np.ndarray:
    """(seconds, speech or not) one after another, in whole frames."""
    return np.concatenate([np.full(round(s * SECOND) * FRAME, level, np.float32) for s, level in parts])


def cut(samples: np.ndarray, seconds: float = 30.0, block: int = 10 * RATE) -> list[tuple[float, float]]:
    blocks = (samples[at : at + block] for at in range(0, len(samples), block))
    found = list(spoken_windows(blocks, RATE, seconds, Marked()))  # type: ignore[arg-type]
    for window in found:
        start = round(window.start * RATE)
        np.testing.assert_array_equal(window.samples, samples[start : start + len(window.samples)])
    return [(w.start, w.start + w.seconds) for w in found]


def near(found: list[tuple[float, float]], expected: list[tuple[float, float]]) -> bool:
    return len(found) == len(expected) and np.allclose(found, expected, atol=0.07)


def test_silence_is_nothing() -> None:
    assert (
        cut(stream((100, 0))) == []
        and cut(np.zeros(0, np.float32)) == []
        and cut(np.zeros(7, np.float32)) == []
    )


def test_a_window_begins_before_speech_and_keeps_a_short_end() -> None:
    assert near(cut(stream((10, 0), (5, 1), (2, 0))), [(9.8, 17)])


def test_long_pauses_part_windows_and_belong_to_none() -> None:
    assert near(cut(stream((5, 1), (6, 0), (5, 1), (60, 0), (1, 1))), [(0, 5.2), (10.8, 16.2), (75.8, 77)])


def test_the_cut_is_in_the_longest_pause_of_the_later_half() -> None:
    samples = stream((4, 1), (2, 0), (14, 1), (0.5, 0), (2, 1), (0.3, 0), (20, 1))
    assert near(cut(samples), [(0, 20.2), (20.25, 42.8)])


def test_speech_without_a_pause_is_cut_all_the_same() -> None:
    found = cut(stream((100, 1)))
    assert found[0][0] == 0 and found[-1][1] == pytest.approx(100, abs=0.05)
    assert all(abs(a[1] - b[0]) < 1e-9 for a, b in itertools.pairwise(found))
    assert all(15 <= end - start <= 30 for start, end in found[:-1])


@pytest.mark.parametrize("seed", range(8))
def test_every_spoken_frame_is_in_one_window_whatever_the_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [(rng.choice([0.1, 0.4, 2, 7, 35]) * rng.uniform(0.5, 1.5), float(i % 2)) for i in range(30)]
    samples = stream(*parts)[: -int(rng.integers(1, FRAME))]
    found = cut(samples)
    for block in (997, 3 * RATE, len(samples)):
        assert cut(samples, block=block) == found
    assert all(0 < end - start <= 30 for start, end in found)
    assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(found))
    covered = np.zeros(len(samples), bool)
    for start, end in found:
        covered[round(start * RATE) : round(end * RATE)] = True
    assert covered[samples > 0.5].all()


def test_the_real_detector_hears_the_clips_and_nothing_in_noise() -> None:
    pytest.importorskip("faster_whisper")
    clips = [read(clip.path, RATE) for clip in speech.clips()[:6]]
    noise = np.random.default_rng(0).normal(0, 0.01, 8 * RATE).astype(np.float32)
    samples = np.concatenate([part for clip in clips for part in (noise, clip)])
    found = list(spoken_windows(iter(np.array_split(samples, 17)), RATE, 10.0, voice.Voice()))
    assert len(found) == len(clips)
    at = 0.0
    for window, clip in zip(found, clips):
        at += 8
        assert at - 0.3 <= window.start <= at + 0.7
        assert window.start + window.seconds <= at + len(clip) / RATE + 0.3
        at += len(clip) / RATE


def test_the_detectors_state_goes_on_between_calls() -> None:
    pytest.importorskip("faster_whisper")
    samples = read(speech.clips()[0].path, RATE)
    samples = samples[: len(samples) // FRAME * FRAME]
    whole, pieces = voice.Voice(), voice.Voice()
    parts = [pieces(part) for part in np.split(samples, [5 * FRAME, 6 * FRAME, 40 * FRAME])]
    np.testing.assert_allclose(np.concatenate(parts), whole(samples), atol=1e-4)


def test_its_answers_are_faster_whispers(monkeypatch: pytest.MonkeyPatch) -> None:
    vad = pytest.importorskip("faster_whisper.vad")
    samples = read(speech.clips()[0].path, RATE)
    samples = samples[: len(samples) // FRAME * FRAME]
    np.testing.assert_allclose(voice.Voice()(samples), vad.get_vad_model()(samples).reshape(-1), atol=1e-4)


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        XdnaError, match=r"faster_whisper is not installed: pip install '.\[fast\]' in the checkout"
    ):
        voice.Voice()
