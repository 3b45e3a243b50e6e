"""Frames that the host writes once, and the block columns that transfers gather from them."""

import numpy as np
import pytest

from torch_xdna.lowering import limits
from torch_xdna.lowering.host_data.bf16 import from_bf16, to_bf16
from torch_xdna.lowering.host_data.blocks import slot_matrix, unpack_a
from torch_xdna.lowering.host_data.conv_input import conv_input
from torch_xdna.lowering.streams.descriptors import fit

PLANES = ((-1, 0, 1), 2)  # centers, phases: a stride-1 convolution before one of stride 2
ALONE = ((0,), 1)
STRIDE = ((0,), 2)


def words_of(piece):
    """Word addresses of a transfer, in its order."""
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(piece.sizes, piece.strides)), indexing="ij")
    return (piece.offset + sum(axes)).reshape(-1)


def gathered(given, memory):
    """The matrix that the gathering step makes, read as its transfers would."""
    words = memory.reshape(-1).view(np.uint32)
    grid = np.empty((given.row_blocks, len(given.columns), 4096), np.uint16)
    for i in range(given.row_blocks):
        for n in range(len(given.columns)):
            addresses = np.concatenate([words_of(piece) for piece in fit(given.pattern(i, n))])
            assert addresses.max() < words.size
            grid[i, n] = words[addresses].view(np.uint16)
    return unpack_a(grid, 64 * given.row_blocks, 64 * len(given.columns))


def convolved(x, weight, rows):
    """Row `f` of the convolution, for any f: frames that are not there are zero."""
    padded = {f: x[f] for f in range(len(x))}
    zero = np.zeros(x.shape[1])
    return np.stack(
        [sum(weight[:, :, tap] @ padded.get(f - 1 + tap, zero) for tap in range(3)) for f in rows]
    )


@pytest.mark.parametrize("channels", [3, 8, 9, 16, 24, 64, 80, 100, 128])
@pytest.mark.parametrize(("centers", "phases"), [PLANES, ALONE, STRIDE], ids=["planes", "alone", "stride"])
@pytest.mark.parametrize("count", [131, 512])
def test_windows_times_slots_are_the_convolution(channels, centers, phases, count):
    rng = np.random.default_rng(channels)
    x = from_bf16(to_bf16(rng.standard_normal((count, channels))))
    weight = rng.standard_normal((5, channels, 3)).astype(np.float32)
    rows = -(-count // phases)
    given = conv_input(channels, centers, phases, -(-rows // 256) * 4, "x")
    memory = np.full((given.buffer.blocks, 4096), 0x7FFF, np.uint16)  # NaN where nothing is written
    given.write(memory, x)
    matrix = gathered(given, memory)
    for center in centers:
        first, slots = given.window(center)
        part = matrix[:rows, 64 * first : 64 * first + 8 * len(slots)]
        found = part.astype(np.float64) @ slot_matrix(weight, slots).astype(np.float64).T
        expected = convolved(x.astype(np.float64), weight, [phases * t + center for t in range(rows)])
        assert np.allclose(found, expected, atol=1e-5)


def test_whisper_needs_no_more_blocks_than_an_im2col():
    given = conv_input(80, *PLANES, 24, "mel")
    assert [given.window(center)[0] for center in (-1, 0, 1)] == [0, 1, 3]
    assert all(len(given.window(center)[1]) == 4 * 8 for center in (-1, 0, 1)), "240 columns are 4 blocks"
    assert len(given.columns) == 7
    assert given.buffer.blocks * limits.BLOCK_BYTES < 1.05 * 2 * 3000 * 80, "each frame once"
    assert all(len(fit(given.pattern(23, n))) == 1 for n in range(7)), "one transfer per block"


def test_every_weight_is_used_once():
    for centers, phases in (PLANES, ALONE, STRIDE):
        given = conv_input(80, centers, phases, 4, "mel")
        for center in centers:
            used = [slot for slot in given.window(center)[1] if slot is not None]
            assert sorted(used) == [(tap, group) for tap in range(3) for group in range(10)]
