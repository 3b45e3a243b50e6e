"""espeak-ng through its C library: text and voice in, 16 kHz samples and the start of every word out.

The library is called in process (one process start per clip would cost more than the synthesis). Install it
with `apt install espeak-ng` (Debian, Ubuntu), `dnf install espeak-ng` (Fedora), `brew install espeak-ng`
(macOS). espeak-ng is GPL-3.0 software; the sound it makes from one's own text is not a derived work of it and
free to ship.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import re
from dataclasses import dataclass

import numpy as np
import soxr

RATE = 16_000  # of the returned samples

# constants of speak_lib.h
_SYNCHRONOUS = 2
_EVENT_LIST_TERMINATED, _EVENT_WORD = 0, 1
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_CHARS_UTF8 = 1
_POS_CHARACTER = 1


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Speech:
    """`samples`: int16 at 16 kHz, silence at both ends cut off; `starts`: seconds, one per word of the text.

    espeak-ng speaks some pairs as one word ("in the"): the second one's start is then infinite.
    """

    samples: np.ndarray
    starts: tuple[float, ...]


class Espeak:
    """One synthesiser; the C library keeps global state, so one per process."""

    def __init__(self) -> None:
        path = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise RuntimeError(
                "libespeak-ng is missing: install espeak-ng (apt install espeak-ng)"
            ) from error
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        if self._rate <= 0:
            raise RuntimeError("espeak_Initialize failed: is espeak-ng-data installed?")
        self._pieces: list[np.ndarray] = []
        self._words: list[tuple[int, int]] = []
        self._callback = _CALLBACK(self._collect)  # kept alive: the library holds only the pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, *, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> Speech:
        """`voice` as espeak-ng's -v takes it ("en-us+f3"), pitch and range 0 to 99 (50 is normal)."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice}")
        for parameter, value in (
            (_PARAMETER_RATE, words_per_minute),
            (_PARAMETER_PITCH, pitch),
            (_PARAMETER_RANGE, pitch_range),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces, self._words = [], []
        data = text.encode()
        status = self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data) + 1), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        if status != 0 or not self._pieces:
            raise RuntimeError(f"espeak-ng did not speak {text!r} (status {status})")
        return self._trim(text, np.concatenate(self._pieces))

    def _collect(self, samples, count, events) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        index = 0
        while events[index].type != _EVENT_LIST_TERMINATED:
            if events[index].type == _EVENT_WORD:
                self._words.append((events[index].text_position, events[index].audio_position))
            index += 1
        return 0

    def _trim(self, text: str, samples: np.ndarray) -> Speech:
        at_16k = soxr.resample(samples.astype(np.float32) / 32768, self._rate, RATE)
        loud = np.flatnonzero(np.abs(at_16k) > 0.01 * np.abs(at_16k).max())
        first, last = int(loud[0]), int(loud[-1]) + 1
        begins = {position: milliseconds / 1000 - first / RATE for position, milliseconds in self._words}
        starts = [max(0.0, begins.get(match.start() + 1, math.inf)) for match in re.finditer(r"\S+", text)]
        clipped = np.clip(at_16k[first:last] * 32768, -32768, 32767)
        return Speech(clipped.astype(np.int16), tuple(starts))
