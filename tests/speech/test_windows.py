"""Cutting a stream into windows: nothing lost, nothing twice, no cut inside a word, memory flat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_xdna.speech.windows import SILENCE_DBFS, Window, loudness, quietest, speech_bounds, windows

RATE = 16_000


def speech(*parts: float) -> np.ndarray:
    """Noise for positive and silence for negative seconds."""
    rng = np.random.default_rng(0)
    pieces = [0.2 * rng.standard_normal(int(p * RATE)) if p > 0 else np.zeros(int(-p * RATE)) for p in parts]
    return np.concatenate(pieces).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5_000), min_size=1, max_size=40), seconds=st.sampled_from([0.3, 0.5, 1.0])
)
def test_windows_are_the_stream_again(sizes: list[int], seconds: float) -> None:
    rng = np.random.default_rng(len(sizes))
    blocks = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    found = list(windows(blocks, RATE, seconds))
    np.testing.assert_array_equal(np.concatenate([w.samples for w in found]), np.concatenate(blocks))
    starts = np.cumsum([0] + [len(w.samples) for w in found[:-1]]) / RATE
    assert [w.start for w in found] == pytest.approx(list(starts))
    assert all(0 < w.seconds <= seconds for w in found)
    assert all(w.seconds >= 0.4 * seconds for w in found[:-1])


def test_cuts_fall_into_pauses() -> None:
    stream = speech(3, -0.4, 3, -0.4, 3, -0.4, 3, -0.4, 3)
    pauses = [(3.4 * i + 3, 3.4 * i + 3.4) for i in range(4)]
    cuts = [w.start for w in windows([stream], RATE, 10)][1:]
    assert cuts
    assert all(any(begin < cut < end for begin, end in pauses) for cut in cuts)


def test_the_latest_of_equal_pauses_is_taken() -> None:
    stream = speech(5.5, -0.5, 2, -0.5, 3)
    assert 8.0 < quietest(stream[: 10 * RATE], RATE, 5 * RATE) / RATE < 8.5


def test_speech_without_a_pause_is_cut_anyway() -> None:
    assert [round(w.seconds) for w in windows([speech(25)], RATE, 10)][-1] <= 10


def test_only_one_window_and_one_block_are_held() -> None:
    consumed = 0

    def blocks():
        nonlocal consumed
        for _ in range(200):
            consumed += 1
            yield speech(1)

    for window in windows(blocks(), RATE, 10):
        assert consumed - (window.start + window.seconds) <= 11


def test_silence_is_recognised() -> None:
    assert Window(0, speech(-2), RATE).is_silent
    assert Window(0, np.full(RATE, 10 ** ((SILENCE_DBFS - 3) / 20), np.float32), RATE).is_silent
    assert not Window(0, 0.005 * speech(0.1, -2), RATE).is_silent


def test_bounds_of_speech() -> None:
    assert speech_bounds(speech(-1.0, 2.0, -0.5), RATE) == pytest.approx((1.0, 3.0), abs=0.03)


def test_loudness_is_in_decibels_of_full_scale() -> None:
    square = np.full(RATE + 7, 0.1, np.float32)
    np.testing.assert_allclose(loudness(square, RATE), -20, atol=1e-4)
