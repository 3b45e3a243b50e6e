"""A shim descriptor's eight registers -> the sequence of words that it moves.

word 0 length   1, 2 address (patched)   3 wrap 0, step 0 - 1   4 burst, wrap 1, step 1 - 1
word 5 step 2 - 1   6 iteration: current, count - 1, step - 1   7 valid, locks, chaining
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from torch_xdna.devices.array.errors import HardwareFault

_STEP = 0xFFFFF
_VALID = 1 << 25
_PACKET = 1 << 30
# Bits that no transfer of this overlay sets: secure access; system MMU id, quality of service.
_UNMODELLED = {3: 0x3 << 30, 5: 0xF << 28 | 0xF << 20}


@dataclass(frozen=True)
class Transfer:
    """Words of one argument in stream order: for each base, all of `sizes` (outermost first, strides in
    words).

    `bases` are word offsets, one per repeat; a repeat ends after `length` words, whatever `sizes` would
    allow.
    """

    bases: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    length: int  # words per repeat

    @property
    def words(self) -> int:
        return self.length * len(self.bases)

    @property
    def regular(self) -> bool:
        """Whether `sizes` make up exactly `length` words."""
        return int(np.prod(self.sizes)) == self.length

    def runs(self) -> tuple[list[int], int]:
        """Start (word offset) of every contiguous run in stream order, and the runs' length in words."""
        if not self.regular:
            return self.indices().tolist(), 1
        sizes, strides = list(self.sizes), list(self.strides)
        run = 1
        while sizes and (strides[-1] == run or sizes[-1] == 1):
            run *= sizes.pop()
            strides.pop()
        starts = np.array(self.bases, dtype=np.int64)
        for size, stride in zip(sizes, strides):
            starts = (starts[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
        return starts.tolist(), run

    def indices(self) -> np.ndarray:
        """Every word's offset in stream order."""
        inner = np.zeros(1, dtype=np.int64)
        for size, stride in zip(self.sizes, self.strides):
            inner = (inner[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
        inner = inner[: self.length]
        return (np.array(self.bases, dtype=np.int64)[:, None] + inner).reshape(-1)

    @property
    def extent(self) -> tuple[int, int]:
        """[first, last) word offset that it touches."""
        reach = sum((size - 1) * stride for size, stride in zip(self.sizes, self.strides))
        if not self.regular:
            reach = int(self.indices().max()) - max(self.bases)
        return min(self.bases), max(self.bases) + reach + 1

    def select(self, words: np.ndarray) -> Iterator[np.ndarray]:
        """Writable views of `words` (one element per word of memory) that cover it; repeats come once."""
        step = words.itemsize
        for base in dict.fromkeys(self.bases):
            if self.regular:
                keep = [(n, s) for n, s in zip(self.sizes, self.strides) if n > 1]
                shape, strides = [n for n, _ in keep], [s * step for _, s in keep]
                yield as_strided(words[base:], shape, strides)
            else:
                for index in np.unique(self.indices()).tolist():
                    yield words[index : index + 1]
                return


def parse(words: list[int], offset_bytes: int, repeats: int, where: str) -> tuple[Transfer, int]:
    """The transfer of a descriptor executed `repeats` times, and its iteration counter afterwards."""
    length, _, high, dim0, dim1, dim2, iteration, control = words
    if not control & _VALID:
        raise HardwareFault("descriptor", f"{where} is not valid: its valid bit is 0")
    if control & ~_VALID:
        raise HardwareFault(
            "descriptor", f"{where} uses locks or chaining ({control:#010x}), which no shim here has"
        )
    if high & _PACKET or high >> 16 & 0x7FFF:
        raise HardwareFault(
            "descriptor", f"{where} sends packets ({high:#010x}), but all streams are circuits"
        )
    for index, mask in _UNMODELLED.items():
        if words[index] & mask:
            raise HardwareFault(
                "descriptor", f"{where} has reserved bits set in word {index} ({words[index]:#010x})"
            )
    if length == 0:
        raise HardwareFault("descriptor", f"{where} moves 0 words")
    if offset_bytes % 4:
        raise HardwareFault("descriptor", f"{where} starts at byte {offset_bytes}, not at a multiple of 4")
    wrap0, wrap1 = dim0 >> 20 & 0x3FF, dim1 >> 20 & 0x3FF
    steps = (dim2 & _STEP) + 1, (dim1 & _STEP) + 1, (dim0 & _STEP) + 1
    size0 = wrap0 or length
    size1 = (wrap1 or -(-length // size0)) if wrap0 else 1
    size2 = -(-length // (size0 * size1))
    count, current, step = (iteration >> 20 & 0x3F) + 1, iteration >> 26, (iteration & _STEP) + 1
    base = offset_bytes // 4
    bases = tuple(base + (current + i) % count * step for i in range(repeats))
    after = (iteration & 0x3FFFFFF) | (current + repeats) % count << 26
    return Transfer(bases, (size2, size1, size0), steps, length), after
