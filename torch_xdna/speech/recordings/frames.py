"""Whether bytes are frames of MPEG audio (ISO 11172-3, 13818-3: layers I to III) or of AAC in ADTS (13818-7)."""

from __future__ import annotations

from torch_xdna.speech.recordings.data import Bytes

_FRAMES = 3  # in a row, each where the one before says that it ends; one alone comes up in samples by chance
# kbit/s by index, for (MPEG-1?, layer)
_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = (44_100, 48_000, 32_000)  # of MPEG-1; half of it for MPEG-2, a quarter for 2.5


def are_frames(data: Bytes, at: int) -> bool:
    for _ in range(_FRAMES):
        length = _length(data.at(at, 7))
        if not length:
            return False
        at += length
    return at <= data.size


def _length(head: bytes) -> int:
    """Bytes of the frame that begins with `head`, 0 if none does."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    if layer == 4:
        is_adts = head[1] & 0xF6 == 0xF0
        return ((head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5) if is_adts else 0
    rate, hertz, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or rate in (0, 15) or hertz == 3:
        return 0
    bits = 1000 * _RATES[(version == 3, layer)][rate - 1]
    frequency = _HERTZ[hertz] // {3: 1, 2: 2, 0: 4}[version]
    if layer == 1:
        return (12 * bits // frequency + padding) * 4
    return (144 if layer == 2 or version == 3 else 72) * bits // frequency + padding
