"""Reading audio: every format, rate and channel count, and one sentence for everything that can't be read."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from torch_xdna.speech.audio import AudioError, duration, read, read_blocks

RATE = 16_000


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def strongest_hertz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * RATE / len(samples))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_every_format_and_rate_gives_the_same_tone(tmp_path: Path, suffix: str, rate: int) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(2.0, rate), rate)
    samples = read(path, RATE)
    assert samples.dtype == np.float32 and samples.ndim == 1
    padding = 0.1 if suffix == "mp3" else 0.001  # the mp3 encoder adds silence at both ends
    assert len(samples) / RATE == pytest.approx(2.0, abs=padding)
    assert strongest_hertz(samples) == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(samples[4_000:-4_000] ** 2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_wav_sample_type(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(0.5, RATE), RATE, subtype=subtype)
    assert np.abs(read(path, RATE) - tone(0.5, RATE)).max() < 0.02


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    left, right = tone(1.0, RATE), tone(1.0, RATE, hertz=660)
    soundfile.write(path, np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(read(path, RATE), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("block_seconds", [0.1, 0.37, 10.0])
def test_blocks_do_not_change_the_samples(tmp_path: Path, block_seconds: float) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(1.7, 44_100), 44_100, subtype="FLOAT")
    blocks = np.concatenate(list(read_blocks(path, RATE, block_seconds)))
    np.testing.assert_allclose(blocks, read(path, RATE), atol=1e-5)


def test_duration_comes_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, tone(3.0, 22_050), 22_050)
    assert duration(path) == pytest.approx(3.0)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(seconds: float) -> int:
        path = tmp_path / "noise.wav"
        with soundfile.SoundFile(path, "w", 44_100, 1, "PCM_16") as file:
            for _ in range(int(seconds / 10)):
                file.write(tone(10, 44_100))
        tracemalloc.start()
        count = sum(len(block) for block in read_blocks(path, RATE))
        assert count == pytest.approx(seconds * RATE, abs=2)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    assert peak(600) < 1.2 * peak(60)


def broken(tmp_path: Path, suffix: str, keep: float) -> Path:
    path = tmp_path / f"cut.{suffix}"
    soundfile.write(path, tone(5.0, RATE), RATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.97])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    path = broken(tmp_path, suffix, keep)
    with pytest.raises(AudioError, match=r"truncated|can't be decoded") as caught:
        list(read_blocks(path, RATE))
    assert_one_sentence(caught.value, path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_whole_files_are_not_called_truncated(tmp_path: Path, suffix: str) -> None:
    assert len(read(broken(tmp_path, suffix, 1.0), RATE)) >= 5 * RATE


def test_a_wav_of_unknown_length_is_read(tmp_path: Path) -> None:
    """What a program writes that pipes wav: it can't go back to fill in the sizes."""
    path = tmp_path / "pipe.wav"
    soundfile.write(path, tone(1.0, RATE), RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFF_FFFF)
    path.write_bytes(bytes(data))
    assert len(read(path, RATE)) == RATE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused_with_their_place(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "bad.wav"
    samples = tone(12.0, RATE)
    samples[int(11.5 * RATE)] = bad
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"1 NaN or infinite samples, the first at 11\.50 s") as caught:
        list(read_blocks(path, RATE))
    assert_one_sentence(caught.value, path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"Dear diary, today nothing happened.\n" * 99, "is not audio"),
        (bytes(range(256)) * 40, "is not audio"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "is not audio"),
        (b"RIFF\x24\x00\x00\x00WAVE", "truncated"),
        (b"fLaC" + bytes(200), "can't be decoded"),
        (b"OggS" + bytes(200), "truncated|can't be decoded"),
    ],
)
def test_files_without_audio_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=reason) as caught:
        list(read_blocks(path, RATE))
    assert_one_sentence(caught.value, path)


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(0, np.float32), RATE)
    with pytest.raises(AudioError, match="holds no samples") as caught:
        list(read_blocks(path, RATE))
    assert_one_sentence(caught.value, path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.wav", "does not exist"), (tmp_path, "is not a file")):
        with pytest.raises(AudioError, match=reason) as caught:
            list(read_blocks(path, RATE))
        assert_one_sentence(caught.value, path)


def assert_one_sentence(error: AudioError, path: Path) -> None:
    text = str(error)
    assert text.startswith(str(path)) and text.endswith(".") and "\n" not in text
