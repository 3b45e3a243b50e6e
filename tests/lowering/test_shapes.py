"""Sizes, budgets and refusals: nothing is executed here."""

import re
import time

import numpy as np
import pytest
from expected import Builder, random_params

from torch_xdna import lowering
from torch_xdna.lowering import listing, ops, pipeline
from torch_xdna.lowering.commands.commands import Dma, Wait
from torch_xdna.lowering.errors import LimitError, LoweringError
from torch_xdna.lowering.whisper import MODELS, encoder_region


@pytest.mark.parametrize("context", [50, 1500])
@pytest.mark.parametrize("size", ["tiny", "base", "small", "medium"])
def test_every_size_lowers_and_encodes(size, context):
    program = lowering.lower(encoder_region(MODELS[size], context))
    assert len(program.words) * 4 < 64 << 20
    assert len(program.commands) == len(program.step_of_command)


def test_base_meets_its_budgets():
    region = encoder_region(MODELS["base"], 1500)
    pipeline._lower.cache_clear()
    start = time.process_time()
    program = lowering.lower(region)
    assert time.process_time() - start < 1.0
    assert 4 * len(program.words) <= 600_000
    assert program.activations_bytes <= 16 << 20
    params = random_params(region)
    start = time.process_time()
    program.pack_weights(params)
    assert time.process_time() - start < 1.0
    assert program.generation_seconds > 0


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize(
    "rows, k, n", [(1, 8192, 8192), (1500, 8192, 8192), (300, 64, 8192), (4096, 8192, 64), (7, 20000, 70)]
)
def test_large_linears_move_every_block_they_need(rows, k, n, columns):
    b = Builder()
    program = lowering.lower(b.region(b.linear(b.input(rows, k), n, "fc")), columns=columns)
    k_blocks, groups, panels = -(-k // 64), -(-rows // 256), 4 * -(-n // 256)
    op = program.steps[0]
    assert op.b_bytes == groups * panels * (k_blocks + 1) * 8192
    assert op.c_bytes == groups * panels * 4 * 8192
    assert op.a_bytes == (groups * 4 * k_blocks * panels // columns + 4) * 8192
    assert op.bytes_moved == sum(c.bytes for c in program.commands if isinstance(c, Dma))


def test_limits_are_named():
    b = Builder()
    with pytest.raises(LimitError, match=r"^layer_norm width: .* is 2112, the limit is 2048 columns"):
        lowering.lower(b.region(b.norm(b.input(4, 2112), "norm")))
    b = Builder()
    with pytest.raises(LimitError, match=r"^softmax width: "):
        lowering.lower(b.region(b.op(ops.Softmax, "softmax", b.input(4, 4160))))
    b = Builder()
    region = b.region(b.linear(b.input(4, 64), 64, "fc"))
    with pytest.raises(LimitError, match=r"^columns: "):
        lowering.lower(region, columns=3)
    b = Builder()
    with pytest.raises(LimitError, match=r"^argument offset: "):
        lowering.lower(b.region(b.linear(b.input(4, 1 << 16), 1 << 16, "fc")))


def test_softmax_takes_4096_columns():
    b = Builder()
    program = lowering.lower(b.region(b.op(ops.Softmax, "softmax", b.input(300, 4096))))
    assert program.steps[0].kernel_calls["row_stats"] == 2 * 64


def test_refusals_name_op_shape_and_remedy():
    b = Builder()
    q = b.input(10, 96)
    with pytest.raises(LoweringError, match=r"attention small .*10x96.*heads of 48.*leave it on the CPU"):
        lowering.lower(b.region(b.op(ops.Attention, "small", q, q, q, 2)))
    b = Builder()
    x = b.conv(b.linear(b.input(10, 64), 64, "fc"), 64, "late")
    with pytest.raises(LoweringError, match=r"conv1d late .*rows can't be shifted"):
        lowering.lower(b.region(x))


def test_same_region_gives_the_same_words():
    region = encoder_region(MODELS["tiny"], 100)
    first = lowering.lower(region).words.copy()
    pipeline._lower.cache_clear()
    assert np.array_equal(first, lowering.lower(region).words)


def test_listing_shows_every_transfer_once_with_its_wait():
    program = lowering.lower(encoder_region(MODELS["tiny"], 100))
    text = listing.text(program)
    pairs = re.findall(r"push +(\d+) wait +(\d+)", text)
    transfers = [i for i, c in enumerate(program.commands) if isinstance(c, Dma)]
    assert sorted(int(push) for push, _ in pairs) == transfers
    assert sorted(int(wait) for _, wait in pairs) == [
        i for i, c in enumerate(program.commands) if isinstance(c, Wait)
    ]
    assert "step 6: gemm layers.0.self_attn.q_proj+k_proj+v_proj: 100 x 384 -> 384 + 384 + 384" in text
    assert "header op gemm, outer 6, inner 6, extra 0" in text
