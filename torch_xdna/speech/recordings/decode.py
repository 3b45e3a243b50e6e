"""Decodes with FFmpeg's libraries (PyAV): one stream of bytes to arrays of float32.

Packets that can't be decoded are left out and counted, as FFmpeg's own tools do. PyAV keeps FFmpeg's log off the
terminal unless somebody asks for it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.codec.context import Flags2

from torch_xdna.speech.recordings.data import Bytes
from torch_xdna.speech.recordings.parts import Part

# FFmpeg also reads playlists (which open other files and addresses), pictures and text: not from here.
FORMATS = (
    "wav,w64,aiff,au,caf,flac,ogg,mp3,aac,ac3,eac3,dts,loas,mov,mp4,matroska,webm,avi,asf,xwma,flv,mpeg,mpegts,"
    "amr,amrnb,amrwb,3gp,wv,ape,tta,tak,dsf,mpc,mpc8,rm,nut,voc,sox,nistsphere,ircam,oma,spx,lc3"
)
SHORTEST_GAP, LONGEST_GAP = 0.1, 3600.0  # seconds without sound between two frames that are made up for
FULL_SCALE = {"u1": 128.0, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63}


class NoSound(Exception):
    """The container is fine and holds no audio stream."""


class NoAudio(Exception):
    """FFmpeg can't make anything of it; the argument says why."""


@dataclass
class Damage:
    """What was left out, the decoder's first reason, and seconds of silence that stand for missing sound."""

    packets: int = 0
    reason: str = ""
    silence: float = 0.0


def decoded(part: Part, damage: Damage) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (float32 (frames, channels), Hz) of the first audio stream, full scale 1; a stream may change its
    rate or its channels on the way. What is said stays where it is said: a video's sound that begins after its
    picture and what is missing inside are silence. Raises NoSound or NoAudio.
    """
    with _container(part.data) as container:
        stream = _audio(container)
        frames, end, clock = (
            _frames(container, stream, damage),
            sys.maxsize,
            _Clock(_begin(container, stream)),
        )
        if part.kind == "ogg" and stream.codec_context.name == "vorbis":
            # FFmpeg guesses where Vorbis begins and ends, up to 32 ms off. The first packet only fills the overlap
            # (libvorbis gives out nothing for it, FFmpeg a frame), and the last page counts the samples: with that
            # they are libvorbis's.
            stream.codec_context.flags2 |= Flags2.skip_manual
            next(frames, None)
            end = part.frames or end
        for frame in frames:
            samples = _samples(frame)[:end]
            end -= len(samples)
            for silence in clock.missing(frame):
                damage.silence += len(silence) / frame.sample_rate
                yield silence, frame.sample_rate
            if len(samples):
                yield samples, frame.sample_rate


def _begin(container: Any, stream: Any) -> float | None:
    """When the recording begins, on the stream's clock: with its picture, where it has one."""
    starts = [s.start_time * s.time_base for s in container.streams.video if s.start_time is not None]
    if stream.start_time is None or not starts:
        return None
    return float(min([*starts, stream.start_time * stream.time_base]))


class _Clock:
    """Compares the times that frames carry with how much sound there was before them."""

    def __init__(self, begin: float | None):
        self._next = begin

    def missing(self, frame: Any) -> Iterator[np.ndarray]:
        """Silence, a second at a time, that goes before the frame. Jumps beyond LONGEST_GAP or back are those of
        clocks and not of sound.
        """
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if frame.time is None:
            self._next = None
            return
        gap = 0.0 if self._next is None else frame.time - self._next
        self._next = frame.time + frame.samples / rate
        count = round(gap * rate) if SHORTEST_GAP <= gap <= LONGEST_GAP else 0
        for at in range(0, count, rate):
            yield np.zeros((min(rate, count - at), channels), np.float32)


def _frames(container: Any, stream: Any, damage: Damage) -> Iterator[Any]:
    for packet in _packets(container, stream):
        try:
            yield from stream.codec_context.decode(packet)
        except av.FFmpegError as error:
            damage.packets += 1
            damage.reason = damage.reason or reason(error)


def end_seconds(data: Bytes) -> float:
    """Where the last packet ends, without decoding: what is there, whatever the header says."""
    end = 0.0
    with _container(data) as container:
        stream = _audio(container)
        for packet in _packets(container, stream):
            if packet is not None and packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return end


def header_seconds(data: Bytes) -> float:
    """The length that the header tells or that FFmpeg guesses; 0 where neither does."""
    with _container(data) as container:
        stream = _audio(container)
        if stream.duration:
            return float(stream.duration * stream.time_base)
        return (container.duration or 0) / av.time_base


def reason(error: Exception) -> str:
    """FFmpeg's own words, on one line without the full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).rstrip(".")


def _container(data: Bytes) -> Any:
    data.seek(0)
    try:
        return av.open(data, "r", container_options={"format_whitelist": FORMATS}, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise NoAudio(reason(error)) from error


def _audio(container: Any) -> Any:
    if not container.streams.audio:
        raise NoSound
    stream = container.streams.audio[0]
    if stream.codec_context is None or not stream.codec_context.sample_rate:
        raise NoAudio("its codec is unknown")
    return stream


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """All packets, then None, which asks the decoder for what it holds back."""
    # Where the container breaks off, what was read up to there counts.
    with contextlib.suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    yield None


def _samples(frame: Any) -> np.ndarray:
    values = frame.to_ndarray()  # planar (channels, frames), packed (1, frames * channels)
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    kind = values.dtype.str[1:]
    if kind == "u1":
        values = values.astype(np.float32) - 128
    scale = FULL_SCALE.get(kind)
    if scale is None:
        return values.T.astype(np.float32)
    return values.T.astype(np.float32) * np.float32(1 / scale)
