"""Sound that is missing inside a recording or begins late: what is said stays where it is said, and losses are told."""

from __future__ import annotations

import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from recordings import encoded, pages, share_of, tone, written

from torch_xdna.speech.audio import AudioWarning, read

RATE = 16_000


def vorbis(tmp_path: Path, samples: np.ndarray) -> bytes:
    soundfile.write(tmp_path / "made.ogg", samples, RATE)
    return (tmp_path / "made.ogg").read_bytes()


@pytest.mark.parametrize("how", ["missing", "broken"])
@pytest.mark.parametrize("codec", ["libopus", "vorbis"])
def test_holes_in_ogg_are_said_and_what_follows_stays_in_its_place(
    tmp_path: Path, codec: str, how: str
) -> None:
    # Noise of low level, as codecs make short pages of it, with a tone from the tenth to the twelfth second.
    samples = 0.02 * np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    samples[10 * RATE : 12 * RATE] = tone(2.0, RATE)
    data = vorbis(tmp_path, samples) if codec == "vorbis" else encoded("ogg", codec, RATE, samples=samples)
    cut = pages(data)
    hole = len(cut) // 4
    if how == "missing":
        del cut[hole : hole + 2]
    else:
        for at in (hole, hole + 1):
            cut[at] = cut[at][:200] + bytes([cut[at][200] ^ 0xFF]) + cut[at][201:]
    with pytest.warns(AudioWarning, match=rf"is damaged: 2 of {len(pages(data))} pages were left out"):
        found = read(written(tmp_path / "hole.ogg", b"".join(cut)), RATE)
    assert len(found) / RATE == pytest.approx(20, abs=0.1)
    assert share_of(found[10 * RATE : 12 * RATE], RATE, 440) >= 1.8


@pytest.mark.parametrize("form", ["ogg", "opus"])
def test_whole_ogg_and_several_streams_side_by_side_are_not_called_damaged(tmp_path: Path, form: str) -> None:
    one = encoded(form, "libopus", RATE, seconds=8.0)
    for data in (one, one + encoded(form, "libopus", RATE, seconds=3.0)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read(written(tmp_path / "whole.ogg", data), RATE)


def late(form: str, codec: str, begin: float, hole: tuple[float, float] | None = None) -> bytes:
    """A video of 6 s whose sound, a tone, begins `begin` seconds after the picture and leaves out the hole."""
    path = Path(f"late.{form}")
    with av.open(str(path), "w", format=form) as container:
        picture = container.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        stream.codec_context.open()
        for _ in range(150):
            container.mux(
                picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24"))
            )
        container.mux(picture.encode(None))
        size = stream.codec_context.frame_size or 1_024
        samples = tone(6.0 - begin, 48_000)
        for at in range(0, len(samples) - size, size):
            if hole and hole[0] <= begin + at / 48_000 < hole[1]:
                continue
            frame = av.AudioFrame.from_ndarray(samples[None, at : at + size], format="fltp", layout="mono")
            frame.rate, frame.pts = 48_000, round(begin * 48_000) + at
            for piece in av.AudioResampler(format=stream.format, layout="mono", rate=48_000).resample(frame):
                piece.pts = frame.pts
                container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "aac"), ("mov", "pcm_s16le"), ("matroska", "libopus"), ("mpegts", "aac")]
)
def test_a_videos_sound_that_begins_late_is_preceded_by_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, codec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    samples = read(written(tmp_path / "late", late(form, codec, 2.0)), RATE)
    assert len(samples) / RATE == pytest.approx(6, abs=0.15)
    assert np.abs(samples[: int(1.9 * RATE)]).max() < 1e-3
    assert share_of(samples[int(2.1 * RATE) :], RATE, 440) >= 3.6


@pytest.mark.parametrize(("form", "codec"), [("matroska", "libopus"), ("mp4", "aac")])
def test_pauses_of_a_recorder_keep_their_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, codec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    samples = read(written(tmp_path / "pause", late(form, codec, 0.0, hole=(2.0, 4.0))), RATE)
    assert len(samples) / RATE == pytest.approx(6, abs=0.15)
    assert np.abs(samples[int(2.2 * RATE) : int(3.8 * RATE)]).max() < 1e-2
    assert share_of(samples[int(4.2 * RATE) :], RATE, 440) >= 1.5


def test_sound_alone_begins_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut out of a longer stream, its clock begins anywhere."""
    data = encoded("mpegts", "aac", RATE, seconds=4.0, options={"output_ts_offset": "1000"})
    samples = read(written(tmp_path / "cut.ts", data), RATE)
    assert len(samples) / RATE == pytest.approx(4, abs=0.1)


# Joined recordings of different kinds

KINDS = {
    "wav": "pcm_s16le",
    "aiff": "pcm_s16be",
    "flac": "flac",
    "mp3": "libmp3lame",
    "ogg": "libopus",
    "ipod": "aac",
    "matroska": "libopus",
    "caf": "pcm_s16le",
    "au": "pcm_s16be",
    "asf": "wmav2",
    "adts": "aac",
}
SECOND = ["wav", "flac", "mp3", "ogg", "ipod", "matroska", "adts"]


# Left out: frames without a header after other frames, where the first one's decoder goes on.
PAIRS = [
    (first, second)
    for first in KINDS
    for second in SECOND
    if first != second and (first, second) not in (("mp3", "adts"), ("flac", "adts"))
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_joined_recordings_of_different_kinds(tmp_path: Path, first: str, second: str) -> None:
    data = encoded(first, KINDS[first], RATE, hertz=440)
    data += encoded(second, KINDS[second], 48_000, hertz=660, seconds=3.0)
    samples = read(written(tmp_path / "joined", data), RATE)
    assert share_of(samples, RATE, 440) >= 1.7
    assert share_of(samples, RATE, 660) >= 2.7
    assert len(samples) / RATE == pytest.approx(5, abs=0.3)


def test_flac_inside_ogg_and_matroska_is_one_recording(tmp_path: Path) -> None:
    for form in ("ogg", "matroska"):
        samples = read(written(tmp_path / form, encoded(form, "flac", RATE)), RATE)
        assert len(samples) / RATE == pytest.approx(2.0, abs=0.05)
