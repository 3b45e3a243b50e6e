"""Reading speech: any file that libsndfile opens, as blocks of mono float32 at the rate a model wants.

`read_blocks` streams, so a file of an hour takes no more memory than one of a minute. Every file that can't
be read whole raises AudioError with one sentence. libsndfile accepts a file that was cut off without a word
(it believes the size on disk, or the header), so the containers are checked here before the first sample is
handed out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from torch_xdna.errors import XdnaError

BLOCK_SECONDS = 10.0
FORMATS = "wav, flac, ogg, mp3"

# The first bytes of what libsndfile reads. Anything else is refused here, because libsndfile would try it as
# mp3, and that decoder writes its guesses to stderr.
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff")
_MP3_SYNC = 0xFFE0


class AudioError(XdnaError, ValueError):
    """A file can't be read as audio; the message is one sentence that names the file and the reason."""


def read_blocks(path: str | Path, rate: int, block_seconds: float = BLOCK_SECONDS) -> Iterator[np.ndarray]:
    """Yields float32 arrays (samples,), mono (the mean of the channels), resampled to `rate` Hz.

    Raises AudioError for a file that is missing, empty, not audio, truncated, or that holds NaN or infinite
    samples; except for the last kind, before the first block.
    """
    path = Path(path)
    _check_container(path)
    with _open(path) as file:
        if file.frames == 0:
            raise AudioError(f"{path} holds no samples: its header is all there is.")
        _check_last_frame(path, file)
        resampler = soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32")
        frames, read = max(1, int(block_seconds * file.samplerate)), 0
        while read < file.frames:
            block = _read(path, file, frames)
            if len(block) == 0:
                raise _truncated(path, f"{file.frames} frames are announced and {read} are there")
            _check_finite(path, block, read, file.samplerate)
            read += len(block)
            mono = np.ascontiguousarray(block.mean(axis=1))
            out = resampler.resample_chunk(mono, last=read >= file.frames)
            if len(out):
                yield out


def read(path: str | Path, rate: int) -> np.ndarray:
    """The whole file at once: float32 (samples,), mono, at `rate` Hz. Raises AudioError as read_blocks
    does.
    """
    return np.concatenate(list(read_blocks(path, rate)))


def duration(path: str | Path) -> float:
    """Length in seconds according to the header; AudioError for what is no audio."""
    path = Path(path)
    _check_container(path)
    with _open(path) as file:
        return file.frames / file.samplerate


def _open(path: Path) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(
            f"{path} can't be decoded as audio ({_reason(error)}): expected {FORMATS}."
        ) from error


def _read(path: Path, file: soundfile.SoundFile, frames: int) -> np.ndarray:
    try:
        return file.read(frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise _truncated(path, _reason(error)) from error


def _check_container(path: Path) -> None:
    if not path.exists():
        raise AudioError(f"{path} does not exist.")
    if not path.is_file():
        raise AudioError(f"{path} is not a file: name an audio file ({FORMATS}).")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            if not head:
                raise AudioError(f"{path} is empty (0 bytes).")
            is_mp3 = head[:3] == b"ID3" or int.from_bytes(head[:2], "big") & _MP3_SYNC == _MP3_SYNC
            if not is_mp3 and not head.startswith(_MAGIC):
                raise AudioError(f"{path} is not audio: it begins like none of {FORMATS}.")
            size = path.stat().st_size
            if head[:4] == b"RIFF":
                _check_wav(path, file, size)
            elif head[:4] == b"OggS":
                _check_ogg(path, file, size)
            elif is_mp3:
                _check_mp3(path, file, size)
    except OSError as error:
        raise AudioError(f"{path} can't be read: {error.strerror}.") from error


def _check_wav(path: Path, file, size: int) -> None:
    """The data chunk must fit into the file. A length of 0xFFFFFFFF (a stream written to a pipe) says
    nothing.
    """
    at = 12
    while at + 8 <= size:
        file.seek(at)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"data":
            if length != 0xFFFF_FFFF and at + 8 + length > size:
                raise _truncated(
                    path, f"{length} bytes of samples are announced and {size - at - 8} are there"
                )
            return
        at += 8 + length + length % 2
    raise _truncated(path, "it ends before its samples begin")


def _check_ogg(path: Path, file, size: int) -> None:
    """The last page must carry the end-of-stream flag (RFC 3533, header type bit 4) and be there whole."""
    file.seek(max(0, size - 65_536))  # a page has at most 65,307 bytes
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    segments = page[26] if len(page) > 26 else 0
    whole = len(page) > 26 and len(page) >= 27 + segments + sum(page[27 : 27 + segments])
    if not whole or not page[5] & 4:
        raise _truncated(path, "its last page does not end the stream")


def _check_mp3(path: Path, file, size: int) -> None:
    """Compares with the stream size in the Xing/Info tag of the first frame, if the encoder wrote one."""
    file.seek(0)
    head = file.read(10)
    begin = 0
    if head[:3] == b"ID3":
        begin = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
    file.seek(begin)
    frame = file.read(256)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 16:
        return
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    if flags & 2:  # a byte count follows, after the frame count (flag 1) if that is there too
        field = at + 8 + (4 if flags & 1 else 0)
        announced = int.from_bytes(frame[field : field + 4], "big")
        if size - begin < announced:
            raise _truncated(path, f"{announced} bytes are announced and {size - begin} are there")


def _check_last_frame(path: Path, file: soundfile.SoundFile) -> None:
    """Seeks to the end and back: a flac or mp3 file whose header promises more than there is shows it
    here.
    """
    if not file.seekable():
        return
    try:
        file.seek(file.frames - 1)
        last = file.read(1, always_2d=True)
        file.seek(0)
    except soundfile.LibsndfileError as error:
        raise _truncated(path, "its last sample can't be reached") from error
    if len(last) != 1:
        raise _truncated(path, "its last sample is not there")


def _check_finite(path: Path, block: np.ndarray, read: int, rate: int) -> None:
    bad = ~np.isfinite(block)
    if bad.any():
        seconds = (read + int(np.argmax(bad.any(axis=1)))) / rate
        raise AudioError(
            f"{path} holds {int(bad.sum())} NaN or infinite samples, the first at {seconds:.2f} s."
        )


def _truncated(path: Path, detail: str) -> AudioError:
    return AudioError(f"{path} is truncated: {detail}.")


def _reason(error: Exception) -> str:
    """libsndfile's own words without its prefix and full stop."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
