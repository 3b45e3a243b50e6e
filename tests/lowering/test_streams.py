"""Fitting loops to descriptors keeps the order of every word and every limit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_xdna.lowering import limits
from torch_xdna.lowering.buffers import Pattern
from torch_xdna.lowering.commands.commands import Dma
from torch_xdna.lowering.commands.encode import encode
from torch_xdna.lowering.streams.descriptors import fit


def walk(base, sizes, strides):
    axes = [np.arange(n) * s for n, s in zip(sizes, strides)]
    return base + sum(np.meshgrid(*axes, indexing="ij")).reshape(-1)


loop = st.tuples(st.integers(1, 70), st.sampled_from([0, 512, 2048, 4096, 8192, 1 << 20, (1 << 20) + 512]))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(loop, max_size=4), st.sampled_from([1, 4, 512, 2048, 5 * 2048, 300 * 2048]), st.integers(0, 99)
)
def test_pieces_walk_the_same_words(loops, run, base):
    while np.prod([count for count, _ in loops]) > 3000:
        loops = loops[1:]
    pattern = Pattern(base, tuple(loops), run)
    pieces = fit(pattern)
    commands = [Dma(0, "MM2S", 0, 0, 0, p.offset, p.sizes, p.strides) for p in pieces]
    encode(commands)
    assert sum(p.words for p in pieces) == pattern.words
    unit = next(n for n in (512, 4, 1) if run % n == 0)  # compare the first word of every unit
    wanted = walk(base, [*(c for c, _ in loops), run // unit], [*(s for _, s in loops), unit])
    got = []
    for p in pieces:
        sizes = (*p.sizes[:3], p.sizes[3] // unit)
        got.append(walk(p.offset, sizes, (*p.strides[:3], unit)))
    assert np.array_equal(np.concatenate(got), wanted)


def test_common_patterns_take_one_transfer():
    block = 2048
    rows_of_a_gemm = Pattern(0, ((8, 0), (6, 32 * block), (8, block)), block)
    panel = Pattern(0, ((6, 0),), 9 * block)
    gemm_output = Pattern(0, ((8, 4 * block), (24, 32 * block)), block)
    row_output = Pattern(0, ((6, 8 * block), (2, 4 * block), (4, 512), (4, block)), 512)
    for pattern in (rows_of_a_gemm, panel, gemm_output, row_output):
        assert len(fit(pattern)) == 1
    assert fit(panel)[0].sizes == (6, 1, 1, 9 * block)


def test_steps_beyond_the_field_are_written_out():
    step = limits.SHIM_STEP.maximum + 512
    assert [p.offset for p in fit(Pattern(0, ((3, step), (4, 4096)), 2048))] == [0, step, 2 * step]
