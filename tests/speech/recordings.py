"""Makes the recordings that the tests of reading need: tones, encoded as programs, phones and dying recorders do."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from pathlib import Path

import av
import numpy as np

CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6}


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def share_of(samples: np.ndarray, rate: int, hertz: float) -> float:
    """Seconds of `samples` in which that tone is the strongest frequency, looked at in pieces of 0.1 s."""
    size = rate // 10
    pieces = samples[: len(samples) // size * size].reshape(-1, size)
    loud = np.abs(pieces).max(axis=1) > 0.1
    strongest = np.abs(np.fft.rfft(pieces * np.hanning(size))).argmax(axis=1) * 10
    return 0.1 * float(np.sum(loud & (np.abs(strongest - hertz) <= 15)))


class Pipe(io.RawIOBase):
    """Where a writer can't go back to fill in lengths."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        self.written += bytes(data)
        return len(data)


def encoded(
    form: str,
    codec: str,
    rate: int,
    layout: str = "mono",
    *,
    samples: np.ndarray | None = None,
    hertz: float = 440.0,
    seconds: float = 2.0,
    video: bool = False,
    sound: bool = True,
    piped: bool = False,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
) -> bytes:
    """A recording in FFmpeg's container `form`: mono samples, by default a tone, on every channel."""
    sink: Pipe | io.BytesIO | str = Pipe() if piped else io.BytesIO()
    if options and "movflags" in options:  # FFmpeg opens the file again to move its index to the front
        sink = str(Path(tempfile.mkdtemp()) / "recording")
    with av.open(sink, "w", format=form, options=options or {}) as container:
        picture = container.add_stream("mpeg4", rate=25) if video else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        if sound:
            stream = container.add_stream(codec, rate=rate, layout=layout, options=codec_options or {})
            if bit_rate is not None or codec == "wmav2":  # which knows no default
                stream.bit_rate = bit_rate or 64_000
            stream.codec_context.open()
        if picture is not None:
            for _ in range(int(25 * seconds)):
                image = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                container.mux(picture.encode(image))
            container.mux(picture.encode(None))
        if sound:
            mono = tone(seconds, rate, hertz) if samples is None else samples
            frame = av.AudioFrame.from_ndarray(
                np.stack([mono.astype(np.float32)] * CHANNELS[layout]), format="fltp", layout=layout
            )
            frame.rate, frame.pts = rate, 0
            resampler = av.AudioResampler(
                format=stream.format,
                layout=layout,
                rate=rate,
                frame_size=stream.codec_context.frame_size or 0,
            )
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(piece))
            # FLAC ends with a packet without sound that holds its final header, which only some containers take.
            container.mux([packet for packet in stream.encode(None) if packet.size or form != "ogg"])
    if isinstance(sink, str):
        data = Path(sink).read_bytes()
        shutil.rmtree(Path(sink).parent)
        return data
    return sink.written if isinstance(sink, Pipe) else sink.getvalue()


def ogg_crc(page: bytes) -> int:
    """RFC 3533: polynomial 0x04C11DB7, begins with 0, over the page with its own field 0."""
    value = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x8000_0000 else 0)
        value &= 0xFFFF_FFFF
    return value


def without_end_flag(data: bytes) -> bytes:
    """Ogg whose last page doesn't say that it is the last."""
    last = data.rfind(b"OggS\x00")
    page = bytearray(data[last:])
    page[5] &= ~4
    page[22:26] = ogg_crc(bytes(page)).to_bytes(4, "little")
    return data[:last] + bytes(page)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def pages(data: bytes) -> list[bytes]:
    """Of an Ogg recording."""
    begins = [match.start() for match in re.finditer(rb"OggS\x00", data)]
    return [data[begin:end] for begin, end in zip(begins, [*begins[1:], len(data)])]
