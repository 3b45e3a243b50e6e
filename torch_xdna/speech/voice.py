"""Where somebody speaks: Silero's detector (MIT licence) out of faster-whisper's package, fed piece by piece.

Windows are cut in the pauses that it finds and begin where speech does; what nobody says is not encoded. Where the
package is not installed `windows` alone cuts, by loudness.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from torch_xdna.errors import XdnaError
from torch_xdna.speech.windows import EARLIEST_CUT, Window, quietest

RATE = 16_000  # Hz, the detector's only one
FRAME = 512  # samples per answer, 32 ms
CONTEXT = 64  # samples before a frame that it hears as well
SPEECH, SILENCE = 0.5, 0.35  # a pause begins below SILENCE and ends at SPEECH: faster-whisper's thresholds
PAD_SECONDS = 0.2  # kept before and after speech
PAUSE_SECONDS = 0.25  # shorter ones are no place for a cut
LONG_PAUSE_SECONDS = 4.0  # a window ends before one of these, so that no decoder fills it with words
RUN = 64  # frames per call of the network: enough for its speed, 2 s


def missing() -> str | None:
    """Why the detector can't be used here, or None if it can."""
    for package in ("faster_whisper", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install '.[fast]' in the checkout"
    return None


class Voice:
    """How probable speech is in every FRAME of a stream; keeps the network's state between calls.

    Raises XdnaError if the package is not there or another one than known.
    """

    def __init__(self) -> None:
        if reason := missing():
            raise XdnaError(f"the voice detector can't be used, because {reason}; or use --no-vad")
        try:
            from faster_whisper.vad import get_vad_model

            self._session: Any = get_vad_model().session
        except (ImportError, AttributeError, RuntimeError) as error:
            raise XdnaError(
                f"the voice detector of the installed faster-whisper can't be used ({error}): pip install "
                "'faster-whisper>=1.2', or use --no-vad"
            ) from error
        self._state = [np.zeros((1, 1, 128), np.float32)] * 2
        self._before = np.zeros(CONTEXT, np.float32)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 (frames,) for samples (frames * FRAME,) that follow those of the call before."""
        if not len(samples):
            return np.zeros(0, np.float32)
        frames = samples.reshape(-1, FRAME)
        before = np.concatenate([self._before[None], frames[:-1, -CONTEXT:]])
        self._before = frames[-1, -CONTEXT:]
        heard = np.concatenate([before, frames], axis=1)
        found = []
        for at in range(0, len(heard), RUN):
            inputs = {"input": heard[at : at + RUN], "h": self._state[0], "c": self._state[1]}
            chances, *self._state = self._session.run(None, inputs)
            found.append(chances.reshape(-1))
        return np.concatenate(found)


def spoken_windows(blocks: Iterable[np.ndarray], rate: int, seconds: float, voice: Voice) -> Iterator[Window]:
    """Yields windows of at most `seconds` in order, each from where speech begins to where it pauses; nothing where
    nobody speaks. Holds one window and one block at a time, whatever the length of the stream.
    """
    cutter = _Cutter(voice, rate, int(seconds * rate))
    for block in blocks:
        cutter.add(block)
        yield from cutter.windows()
    cutter.end()
    yield from cutter.windows()


class _Cutter:
    """Samples that are in no window yet, and which of their frames are speech. `start`: of the first, in the file."""

    def __init__(self, voice: Voice, rate: int, length: int) -> None:
        self._voice, self._rate, self._length = voice, rate, length
        self._start, self._talking, self._ended = 0, False, False
        self._samples = np.zeros(0, np.float32)
        self._spoken = np.zeros(0, bool)  # per frame of FRAME samples from `start` on; the last may be cut

    def add(self, block: np.ndarray) -> None:
        self._samples = np.concatenate([self._samples, block])
        self._hear(len(self._samples) // FRAME)

    def end(self) -> None:
        """The last samples need not fill a frame."""
        self._hear(-(-len(self._samples) // FRAME))
        self._ended = True

    def _hear(self, frames: int) -> None:
        new = self._samples[len(self._spoken) * FRAME : frames * FRAME]
        padded = np.zeros(-(-len(new) // FRAME) * FRAME, np.float32)
        padded[: len(new)] = np.nan_to_num(new)
        marks = []
        for chance in self._voice(padded):
            self._talking = chance >= (SILENCE if self._talking else SPEECH)
            marks.append(self._talking)
        self._spoken = np.concatenate([self._spoken, np.array(marks, bool)])

    def windows(self) -> Iterator[Window]:
        """Those that can be told from what was heard so far."""
        while True:
            self._drop_silence()
            cut = self._cut()
            if cut is None:
                return
            end, following = cut
            yield Window(self._start / self._rate, self._samples[: end * FRAME].copy(), self._rate)
            self._advance(following)

    def _drop_silence(self) -> None:
        spoken = np.flatnonzero(self._spoken)
        first = int(spoken[0]) if len(spoken) else len(self._spoken)
        if first > self._frames(PAD_SECONDS):
            self._advance(first - self._frames(PAD_SECONDS))

    def _advance(self, frames: int) -> None:
        self._start += min(frames * FRAME, len(self._samples))
        self._samples, self._spoken = self._samples[frames * FRAME :], self._spoken[frames:]

    def _cut(self) -> tuple[int, int] | None:
        """The frames at which the window ends and at which the rest begins; None where no speech is left or more
        must be heard."""
        spoken = np.flatnonzero(self._spoken)
        if not len(spoken):
            return None
        pad, whole = self._frames(PAD_SECONDS), self._length // FRAME
        pauses = self._pauses(spoken)
        for begin, end in pauses:
            if begin <= whole and end - begin >= self._frames(LONG_PAUSE_SECONDS):
                return min(begin + pad, whole), begin + pad
        if self._ended and spoken[-1] < whole:
            return min(len(self._spoken), whole), len(self._spoken)  # a short pause at the end costs nothing
        if len(self._spoken) <= whole:
            return None
        best = (0, 0, 0)  # length, where the window ends, where the rest begins
        for begin, end in pauses:
            middle = min((begin + end) // 2, whole)
            if begin < whole and middle >= whole * EARLIEST_CUT and end - begin >= best[0]:
                best = end - begin, min(begin + pad, middle), middle
        if best[0]:
            return best[1:]
        cut = quietest(self._samples[: self._length], self._rate, int(self._length * EARLIEST_CUT)) // FRAME
        return cut, cut

    def _pauses(self, spoken: np.ndarray) -> list[tuple[int, int]]:
        """[first, last) frames without speech for at least PAUSE_SECONDS, what follows the last word included."""
        edges = np.append(spoken, len(self._spoken))
        gaps = np.flatnonzero(np.diff(edges) > self._frames(PAUSE_SECONDS))
        return [(int(edges[i]) + 1, int(edges[i + 1])) for i in gaps]

    def _frames(self, seconds: float) -> int:
        return round(seconds * self._rate / FRAME)
