"""Recordings as people have them: every container, lengths that are wrong or missing, joined streams, pipes, videos,
and what no decoder can read.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from click.testing import CliRunner
from recordings import encoded, share_of, tone, without_end_flag, written

from torch_xdna.cli import transcribe
from torch_xdna.speech.audio import AudioError, AudioWarning, duration, read, read_blocks, shown

RATE = 16_000
DATA = Path(__file__).parent / "data"

# suffix, FFmpeg's container, codec, rates; what the encoder adds at both ends, in samples
CONTAINERS = [
    ("m4a", "ipod", "aac", (8_000, 16_000, 44_100, 48_000), 3 * 1024),
    ("mp4", "mp4", "aac", (8_000, 16_000, 44_100, 48_000), 3 * 1024),
    ("mov", "mov", "pcm_s16le", (8_000, 44_100), 0),
    ("3gp", "3gp", "aac", (16_000,), 3 * 1024),
    ("aac", "adts", "aac", (8_000, 16_000, 44_100, 48_000), 3 * 1024),
    ("webm", "webm", "libopus", (8_000, 16_000, 48_000), 1024),
    ("mka", "matroska", "libopus", (16_000, 48_000), 1024),
    ("mkv", "matroska", "aac", (44_100,), 3 * 1024),
    ("opus", "opus", "libopus", (8_000, 16_000, 48_000), 1024),
    ("ogg", "ogg", "libopus", (16_000, 48_000), 1024),
    ("mp3", "mp3", "libmp3lame", (8_000, 16_000, 44_100, 48_000), 0),
    ("wma", "asf", "wmav2", (16_000, 44_100, 48_000), 2 * 2048),
    ("ac3", "ac3", "ac3", (48_000,), 2 * 1536),
    ("flac", "flac", "flac", (8_000, 16_000, 44_100, 48_000), 0),
    ("m4a", "ipod", "alac", (16_000, 44_100), 0),
    ("wav", "wav", "pcm_s24le", (8_000, 16_000, 44_100, 48_000), 0),
    ("w64", "w64", "pcm_s16le", (16_000,), 0),
    ("aiff", "aiff", "pcm_s16be", (16_000, 44_100), 0),
    ("caf", "caf", "pcm_s16le", (16_000,), 0),
    ("au", "au", "pcm_s16be", (16_000,), 0),
    ("avi", "avi", "libmp3lame", (44_100,), 3 * 1152),
    ("ts", "mpegts", "aac", (48_000,), 3 * 1024),
]
STEREO_AT_MOST = ("libmp3lame", "wmav2")


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize(
    ("suffix", "form", "codec", "rate", "padding"),
    [(*case[:3], rate, case[4]) for case in CONTAINERS for rate in case[3]],
)
def test_every_container_rate_and_layout(
    tmp_path: Path, suffix: str, form: str, codec: str, rate: int, padding: int, layout: str
) -> None:
    if layout == "5.1" and codec in STEREO_AT_MOST:
        layout = "stereo"
    path = written(tmp_path / f"tone.{suffix}", encoded(form, codec, rate, layout, bit_rate=96_000))
    samples = read(path, RATE)
    assert samples.dtype == np.float32 and samples.ndim == 1
    lost = 0.05 if codec == "wmav2" else 0.005  # its first frame has nothing to overlap with
    assert 2.0 - lost <= len(samples) / RATE <= 2.0 + padding / rate + 0.005
    assert share_of(samples, RATE, 440) >= 1.8
    assert np.abs(duration(path) - 2.0) < 0.3 + padding / rate


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        *(
            ("wav", name)
            for name in ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]
        ),
        *(("flac", name) for name in ["PCM_S8", "PCM_16", "PCM_24"]),
        *(("aiff", name) for name in ["PCM_S8", "PCM_16", "PCM_24"]),
    ],
)
def test_uncompressed_and_flac_samples_are_those_of_libsndfile(
    tmp_path: Path, suffix: str, subtype: str, rate: int, channels: int
) -> None:
    path = tmp_path / f"noise.{suffix}"
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (rate // 2, channels)).astype(np.float32)
    soundfile.write(path, noise, rate, subtype=subtype)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    np.testing.assert_array_equal(read(path, rate), expected)
    if rate != RATE:
        np.testing.assert_allclose(read(path, RATE), soxr.resample(expected, rate, RATE), atol=1e-5)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.37, 2.0])
def test_vorbis_begins_and_ends_where_libvorbis_does(tmp_path: Path, rate: int, seconds: float) -> None:
    for number, samples in enumerate(
        (tone(seconds, rate), np.random.default_rng(0).normal(size=int(seconds * rate)) * 0.1)
    ):
        path = tmp_path / f"{number}.ogg"
        soundfile.write(path, samples, rate)
        np.testing.assert_allclose(read(path, rate), soundfile.read(path, dtype="float32")[0], atol=1e-5)


# Lengths that are wrong or missing


def quiet_then_tone(rate: int) -> np.ndarray:
    return np.concatenate([np.zeros(20 * rate, np.float32), tone(3.0, rate)])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("coding", ["vbr", "cbr"])
@pytest.mark.parametrize("order", [1, -1])
def test_mp3_without_a_xing_header(tmp_path: Path, rate: int, layout: str, coding: str, order: int) -> None:
    options = {"q": "5"} if coding == "vbr" else {}
    samples = quiet_then_tone(rate)[::order]
    data = encoded(
        "mp3",
        "libmp3lame",
        rate,
        layout,
        samples=samples,
        options={"write_xing": "0", "id3v2_version": "0"},
        codec_options=options,
        bit_rate=None if coding == "vbr" else 64_000,
    )
    assert b"Xing" not in data and b"Info" not in data
    found = read(written(tmp_path / "quiet.mp3", data), RATE)
    assert len(found) / RATE == pytest.approx(23.0, abs=0.2)
    assert share_of(found, RATE, 440) >= 2.8


PIPED = [
    ("flac", "flac", "flac", 16_000),
    ("wav", "wav", "pcm_s16le", 44_100),
    ("mp3", "mp3", "libmp3lame", 16_000),
    ("webm", "webm", "libopus", 48_000),
    ("mkv", "matroska", "aac", 44_100),
    ("opus", "opus", "libopus", 48_000),
    ("aac", "adts", "aac", 16_000),
    ("wma", "asf", "wmav2", 16_000),
    ("caf", "caf", "pcm_s16le", 16_000),
    ("au", "au", "pcm_s16be", 16_000),
]


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize(("suffix", "form", "codec", "rate"), PIPED)
def test_written_into_a_pipe(
    tmp_path: Path, suffix: str, form: str, codec: str, rate: int, layout: str
) -> None:
    data = encoded(form, codec, rate, layout, piped=True)
    samples = read(written(tmp_path / f"pipe.{suffix}", data), RATE)
    assert len(samples) / RATE == pytest.approx(2.0, abs=0.3)
    assert share_of(samples, RATE, 440) >= 1.8


@pytest.mark.parametrize("suffix", ["flac", "wav", "mp3", "opus", "ogg", "webm"])
def test_a_recorder_that_died_in_the_middle(tmp_path: Path, suffix: str) -> None:
    """Written into a pipe and cut: nothing announces what is missing, so what is there is read."""
    case = {name: rest for name, *rest in PIPED} | {"ogg": ["ogg", "libopus", 48_000]}
    data = encoded(*case[suffix], piped=True, seconds=10.0)  # type: ignore[arg-type]
    at = len(data) // 2
    if suffix in ("opus", "ogg"):
        at = data.rfind(b"OggS\x00", 0, len(data) - 1)
    samples = read(written(tmp_path / f"died.{suffix}", data[:at]), RATE)
    assert share_of(samples, RATE, 440) >= 3.5


def wav(rate: int, channels: int = 1, subtype: str = "PCM_16", tail: bytes = b"") -> bytearray:
    sink = io.BytesIO()
    soundfile.write(sink, np.stack([tone(2.0, rate)] * channels, axis=1), rate, format="WAV", subtype=subtype)
    return bytearray(sink.getvalue() + tail)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0, 0),
        (36, 0),
        (0xFFFF_FFFF, 0xFFFF_FFFF),
        (0xFFFF_FFFF, 0),
        (0x7FFF_F024, 0x7FFF_F000),
        (0x8000_0024, 0x8000_0000),
        (0, 4_000),  # the first flush, filled in before the recorder died
        (4_036, 4_000),
        ("right", "whole"),  # the file's length where the samples' belongs
        (0, "right"),
    ],
)
def test_wav_lengths_that_are_wrong(
    tmp_path: Path, rate: int, channels: int, subtype: str, riff: int | str, data: int | str
) -> None:
    content = wav(rate, channels, subtype)
    at = content.index(b"data") + 4
    values = {"right": len(content) - 8, "whole": len(content)}
    content[4:8] = values.get(riff, riff).to_bytes(4, "little")  # type: ignore[call-overload]
    length = len(content) - at - 4 if data == "right" else values.get(data, data)
    content[at : at + 4] = length.to_bytes(4, "little")  # type: ignore[union-attr]
    samples = read(written(tmp_path / "wrong.wav", bytes(content)), rate)
    np.testing.assert_allclose(samples, tone(2.0, rate), atol=0.01)


@pytest.mark.parametrize(
    "tail",
    [
        b"LIST\x0c\x00\x00\x00INFOISFT\x00\x00\x00\x00",
        b"TAG" + b"\xff" * 125,
        b"ID3\x03\x00\x00\x00\x00\x00\x14" + b"\xff" * 20,
        bytes(999),
    ],
)
def test_what_follows_a_wavs_samples_is_not_heard(tmp_path: Path, tail: bytes) -> None:
    assert len(read(written(tmp_path / "tail.wav", bytes(wav(RATE, tail=tail))), RATE)) == 2 * RATE


@pytest.mark.parametrize("form", ["RF64", "WAVEX", "W64", "CAF", "AU", "AIFF"])
def test_long_and_other_headers(tmp_path: Path, form: str) -> None:
    path = tmp_path / "tone.bin"
    soundfile.write(path, tone(2.0, RATE), RATE, format=form, subtype="PCM_16")
    np.testing.assert_array_equal(read(path, RATE), soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize("length", [0, 8, 4_000])
def test_aiff_lengths_that_are_wrong(tmp_path: Path, length: int) -> None:
    path = tmp_path / "wrong.aiff"
    soundfile.write(path, tone(2.0, RATE), RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"SSND") + 4
    content[at : at + 4] = length.to_bytes(4, "big")
    assert len(read(written(path, bytes(content)), RATE)) == pytest.approx(2 * RATE, abs=8)


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("codec", ["vorbis", "libopus"])
def test_ogg_without_an_end_flag(tmp_path: Path, codec: str, layout: str, rate: int) -> None:
    if codec == "vorbis":
        path = tmp_path / "whole.ogg"
        soundfile.write(path, np.stack([tone(2.0, rate)] * (1 + (layout == "stereo")), axis=1), rate)
        data = path.read_bytes()
    else:
        data = encoded("ogg", codec, rate, layout)
    assert data != without_end_flag(data)
    samples = read(written(tmp_path / "flag.ogg", without_end_flag(data)), RATE)
    assert len(samples) / RATE == pytest.approx(2.0, abs=0.05)
    assert share_of(samples, RATE, 440) >= 1.9


# Joined recordings

JOINED = [
    ("mp3", "libmp3lame", 16_000, 44_100),
    ("flac", "flac", 16_000, 44_100),
    ("wav", "pcm_s16le", 8_000, 48_000),
    ("aiff", "pcm_s16be", 16_000, 44_100),
    ("ogg", "libopus", 48_000, 48_000),
    ("opus", "libopus", 16_000, 48_000),
    ("ipod", "aac", 16_000, 44_100),
    ("mp4", "aac", 44_100, 16_000),
    ("adts", "aac", 16_000, 44_100),
    ("webm", "libopus", 16_000, 48_000),
    ("matroska", "aac", 16_000, 44_100),
    ("asf", "wmav2", 16_000, 44_100),
    ("caf", "pcm_s16le", 16_000, 44_100),
    ("au", "pcm_s16be", 16_000, 44_100),
    ("ac3", "ac3", 48_000, 32_000),
]


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("is_same", [True, False])
@pytest.mark.parametrize(("form", "codec", "rate", "other"), JOINED)
def test_joined_streams_are_all_read(
    tmp_path: Path, form: str, codec: str, rate: int, other: int, is_same: bool, layout: str
) -> None:
    pieces = [
        encoded(form, codec, rate, hertz=440),
        encoded(form, codec, rate if is_same else other, layout, hertz=660, seconds=3.0),
        encoded(form, codec, rate, hertz=880),
    ]
    samples = read(written(tmp_path / "joined", b"".join(pieces)), RATE)
    assert len(samples) / RATE == pytest.approx(7.0, abs=0.6)
    for hertz, seconds in ((440, 2.0), (660, 3.0), (880, 2.0)):
        assert share_of(samples, RATE, hertz) >= seconds - 0.3


def test_joined_vorbis(tmp_path: Path) -> None:
    data = b""
    for hertz, rate in ((440, 16_000), (660, 44_100), (880, 44_100)):
        soundfile.write(tmp_path / "one.ogg", tone(2.0, rate, hertz), rate)
        data += (tmp_path / "one.ogg").read_bytes()
    samples = read(written(tmp_path / "chained.ogg", data), RATE)
    assert len(samples) / RATE == pytest.approx(6.0, abs=0.01)
    assert all(share_of(samples, RATE, hertz) >= 1.8 for hertz in (440, 660, 880))


def test_joined_mp3_of_which_none_or_only_the_second_has_tags(tmp_path: Path) -> None:
    bare = {"write_xing": "0", "id3v2_version": "0"}
    first = encoded("mp3", "libmp3lame", RATE, options=bare)
    for second in (encoded("mp3", "libmp3lame", RATE, hertz=660, options=options) for options in (bare, {})):
        samples = read(written(tmp_path / "joined.mp3", first + second), RATE)
        assert share_of(samples, RATE, 440) >= 1.8 and share_of(samples, RATE, 660) >= 1.8


# Truncated, where it is known


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.97])
@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("ipod", "aac"),
        ("mov", "pcm_s16le"),
        ("matroska", "libopus"),
        ("flac", "flac"),
        ("wav", "pcm_s16le"),
        ("aiff", "pcm_s16be"),
        ("asf", "wmav2"),
        ("avi", "libmp3lame"),
        ("au", "pcm_s16be"),
        ("caf", "pcm_s16le"),
    ],
)
@pytest.mark.parametrize("faststart", [True, False])
def test_what_is_known_to_be_cut_is_called_truncated(
    tmp_path: Path, form: str, codec: str, keep: float, faststart: bool
) -> None:
    options = {"movflags": "faststart"} if faststart and form in ("ipod", "mov") else {}
    data = encoded(form, codec, 48_000, seconds=5.0, options=options)
    path = written(tmp_path / "cut", data[: int(len(data) * keep)])
    with pytest.raises(AudioError, match="is truncated: ") as caught:
        list(read_blocks(path, RATE))
    assert_one_sentence(caught.value)


# Videos


@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "aac"), ("matroska", "libopus"), ("mov", "aac"), ("avi", "libmp3lame")]
)
def test_videos_give_their_sound(tmp_path: Path, form: str, codec: str) -> None:
    samples = read(written(tmp_path / "video", encoded(form, codec, 48_000, "stereo", video=True)), RATE)
    assert share_of(samples, RATE, 440) >= 1.8


@pytest.mark.parametrize("form", ["mp4", "matroska", "mov", "avi"])
def test_a_video_without_sound_gets_a_sentence(tmp_path: Path, form: str) -> None:
    path = written(tmp_path / "silent", encoded(form, "", 0, video=True, sound=False))
    with pytest.raises(AudioError, match="holds no sound") as caught:
        list(read_blocks(path, RATE))
    assert_one_sentence(caught.value)


# Samples


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("largest", [3e38, 1e20, 1e10, 32768.0])
def test_samples_far_beyond_full_scale_get_a_sentence(tmp_path: Path, largest: float, channels: int) -> None:
    path = tmp_path / "large.wav"
    samples = np.stack([tone(1.0, RATE) / 0.4] * channels, axis=1)
    soundfile.write(path, samples * np.float32(largest), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"where full scale is 1, the first at 0\.00 s") as caught:
        list(read_blocks(path, RATE))
    assert_one_sentence(caught.value)


def test_a_little_beyond_full_scale_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, 10 * tone(1.0, RATE), RATE, subtype="FLOAT")
    assert len(read(path, RATE)) == RATE


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("left", [1.0, 0.9, 1.1])
def test_channels_in_opposite_phase_are_warned_about(tmp_path: Path, rate: int, left: float) -> None:
    path = tmp_path / "opposite.wav"
    soundfile.write(
        path, np.stack([left * tone(25.0, rate), -tone(25.0, rate)], axis=1), rate, subtype="FLOAT"
    )
    with pytest.warns(AudioWarning, match=r"the channels cancel each other \(opposite phase\)") as caught:
        samples = read(path, rate)
    assert len(caught) == 1
    assert_one_sentence(caught[0].message)
    louder = left * tone(25.0, rate) if left >= 1 else -tone(25.0, rate)
    np.testing.assert_allclose(samples, louder, atol=1e-6)


def test_channels_that_cancel_later_are_heard_from_there_on(tmp_path: Path) -> None:
    path = tmp_path / "later.wav"
    right = np.concatenate([tone(3.0, RATE), -tone(4.0, RATE)])
    soundfile.write(path, np.stack([tone(7.0, RATE), right], axis=1), RATE)
    with pytest.warns(AudioWarning):
        assert share_of(read(path, RATE), RATE, 440) >= 6.9


def test_other_stereo_is_not_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    noise = np.random.default_rng(0).normal(size=(3, 2 * RATE)).astype(np.float32) * 0.1
    left, quiet = tone(2.0, RATE), np.zeros(2 * RATE, np.float32)
    for channels in (
        [left, left],
        [left, quiet],
        [noise[0], noise[1]],
        [quiet, quiet, left, quiet, quiet, quiet],
    ):
        soundfile.write(path, np.stack(channels, axis=1), RATE)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(read(path, RATE), np.mean(channels, axis=0), atol=1e-4)


# What is no recording, and where recordings come from


BAD = {
    "text.mp3": b"hello\n" * 5_000,
    "random.mp3": np.random.default_rng(1).bytes(300_000),
    "sync.mp3": b"\xff\xfb\x90\x00" * 3_000,
    "tag.mp3": b"ID3\x03\x00\x00\x00\x00\x00\x10" + bytes(16),
    "playlist.m3u8": b"#EXTM3U\n#EXTINF:10,\nother.wav\n",
    "concat.txt": b"ffconcat version 1.0\nfile 'other.wav'\n",
    "subtitles.srt": b"1\n00:00:01,000 --> 00:00:02,000\nhi\n",
    "page.m4a": b"<!DOCTYPE html><html>" * 300,
    "zeros.wav": bytes(10_000),
    "empty.flac": b"",
    "ftyp.mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41",
    "program.wav": b"\x7fELF\x02\x01\x01" + np.random.default_rng(2).bytes(100_000),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_recording_gets_a_sentence(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / "other.wav", tone(1.0, RATE), RATE)
    with pytest.raises(AudioError) as caught:
        list(read_blocks(written(tmp_path / name, BAD[name]), RATE))
    assert_one_sentence(caught.value)


def test_names_that_cannot_be_opened_or_printed(tmp_path: Path) -> None:
    latin = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    for name in ("x" * 300 + ".wav", "a/" * 3_000, "no\nsuch.wav", "bell\x07.wav", latin):
        with pytest.raises(AudioError) as caught:
            list(read_blocks(tmp_path / name, RATE))
        assert_one_sentence(caught.value)
        str(caught.value).encode()
    soundfile.write(tmp_path / "one.wav", tone(1.0, RATE), RATE)
    os.rename(tmp_path / "one.wav", latin)
    assert len(read(latin, RATE)) == RATE
    assert shown(latin).endswith("caf\\xe9.wav")


def test_whatever_raises_becomes_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "tone.wav", bytes(wav(RATE)))
    for error in (PermissionError(13, "Permission denied"), MemoryError(), ValueError("of its own\nkind")):

        def failing(*_: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("torch_xdna.speech.audio._frames", failing)
            with pytest.raises(AudioError, match="can't be read") as caught:
                list(read_blocks(path, RATE))
        assert_one_sentence(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    soundfile.write(folder / "tone.wav", tone(1.0, RATE), RATE)
    folder.chmod(0)
    try:
        with pytest.raises(AudioError, match="Permission denied"):
            list(read_blocks(folder / "tone.wav", RATE))
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(("form", "codec"), [("wav", "pcm_s16le"), ("ipod", "aac"), ("ogg", "libopus")])
def test_named_pipes_are_read(tmp_path: Path, form: str, codec: str) -> None:
    data = encoded(form, codec, 48_000)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    assert duration(tmp_path / "pipe") == 0.0
    writer.start()
    samples = read(tmp_path / "pipe", RATE)
    writer.join()
    assert share_of(samples, RATE, 440) >= 1.8


def test_a_pipe_without_a_writer_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_xdna.speech.recordings.source.WRITER_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match="is a pipe that nothing was written to") as caught:
        list(read_blocks(tmp_path / "pipe", RATE))
    assert_one_sentence(caught.value)


READ = """
import sys, warnings
from torch_xdna.speech.audio import AudioError, read
warnings.simplefilter("ignore")
for path in sys.argv[1:]:
    try:
        print(len(read(path, 16_000)))
    except AudioError as error:
        print(error)
"""


def in_a_process(*paths: object, data: bytes | None = None) -> tuple[list[str], str]:
    """What it prints, and everything that reached its stderr, libraries included."""
    command = [sys.executable, "-c", READ, *map(str, paths)]
    result = subprocess.run(command, input=data or b"", capture_output=True, check=True)
    return result.stdout.decode().splitlines(), result.stderr.decode()


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
        ("ogg", "libopus"),
        ("ipod", "aac"),
        ("webm", "libopus"),
    ],
)
def test_standard_input_is_read(form: str, codec: str) -> None:
    (length,), noise = in_a_process("-", data=encoded(form, codec, 48_000))
    assert int(length) / RATE == pytest.approx(2.0, abs=0.1) and noise == ""


def test_empty_standard_input_gets_a_sentence() -> None:
    assert in_a_process("-", data=b"") == (["standard input is empty (0 bytes)."], "")


def test_decoders_are_not_heard_on_the_terminal(tmp_path: Path) -> None:
    """Damage of every kind of recording, and what is none: nothing of libraries on file descriptors 1 and 2."""
    paths = [written(tmp_path / name, content) for name, content in BAD.items()]
    generator = np.random.default_rng(3)
    for form, codec, rate, _ in JOINED:
        data = bytearray(encoded(form, codec, rate))
        for at in generator.integers(len(data) // 4, len(data), 40):
            data[at] ^= 0xFF
        paths += [
            written(tmp_path / f"damaged.{form}", bytes(data)),
            written(tmp_path / f"cut.{form}", bytes(data[:900])),
        ]
    lines, noise = in_a_process(*paths)
    assert len(lines) == len(paths) and noise == ""


def test_damage_is_left_out_and_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=20 * RATE) * 0.1
    data = bytearray(encoded("flac", "flac", RATE, samples=noise))
    for at in range(len(data) // 4, len(data) // 2, 5_000):
        data[at : at + 200] = bytes(200)
    with pytest.warns(AudioWarning, match=r"is damaged: \d\.\d\d s of 20\.00 s were left out") as caught:
        assert len(read(written(tmp_path / "damaged.flac", bytes(data)), RATE)) > 10 * RATE
    assert_one_sentence(caught[0].message)


def test_damaged_packets_are_left_out_and_said(tmp_path: Path) -> None:
    data = bytearray(encoded("adts", "aac", RATE, seconds=20.0))
    for at in range(len(data) // 4, len(data) // 2, 2_000):
        data[at : at + 200] = b"\xa5" * 200
    with pytest.warns(AudioWarning, match=r"is damaged: \d+ packets were left out"):
        assert len(read(written(tmp_path / "damaged.aac", bytes(data)), RATE)) > 10 * RATE


@pytest.mark.parametrize(("form", "codec"), [("mp3", "libmp3lame"), ("ipod", "aac"), ("flac", "flac")])
def test_memory_does_not_grow_with_coded_recordings(tmp_path: Path, form: str, codec: str) -> None:
    def peak(seconds: float) -> int:
        path = written(tmp_path / "long", encoded(form, codec, RATE, seconds=seconds))
        tracemalloc.start()
        assert sum(map(len, read_blocks(path, RATE))) == pytest.approx(seconds * RATE, abs=4_000)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    assert peak(400) < 1.2 * peak(60)


# The command


def test_the_command_reads_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    said = "peter painted forty seven chairs in rome"
    good = [DATA / "noeosbit_x.opus", DATA / "x.m4a"]
    overflow = tmp_path / "overflow.wav"
    soundfile.write(overflow, np.full((RATE, 2), 3e38, np.float32), RATE, subtype="FLOAT")
    latin = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.m4a"))
    latin.write_bytes(good[1].read_bytes())
    bad = [overflow, tmp_path, tmp_path / ("x" * 300), written(tmp_path / "text.mp3", b"text\n" * 99)]
    bad.append(Path(os.fsdecode(os.fsencode(tmp_path) + b"/no\xff.wav")))
    files = [bad[0], good[0], *bad[1:], "-", good[1], latin]
    result = CliRunner().invoke(
        transcribe.command, [*map(str, files), "--device", "emulator"], input=good[1].read_bytes()
    )
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert result.stdout == "".join(f"{shown(name)}: {said}\n" for name in (good[0], "-", good[1], latin))
    lines = result.stderr.splitlines()
    for path in bad:
        assert sum(line.startswith(f"torch-xdna: {shown(path)} ") for line in lines) == 1


def test_an_ogg_that_libsndfile_calls_truncated(tmp_path: Path) -> None:
    assert len(read(DATA / "noeosbit_sp.ogg", RATE)) / RATE == pytest.approx(9.72, abs=0.01)


def assert_one_sentence(error: object) -> None:
    text = str(error)
    assert text.endswith(".") and text.isprintable()
