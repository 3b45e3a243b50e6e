"""Programs on the reference machine: right results, no hazard, no deadlock, the same on 1, 2, 4 columns."""

import numpy as np
import pytest
from expected import Builder, cosine, random_inputs, random_params, whisper
from reference import run

from torch_xdna import lowering
from torch_xdna.lowering import ops
from torch_xdna.lowering.commands.commands import Dma, MaskWrite, Wait
from torch_xdna.lowering.commands.registers import CONTROL
from torch_xdna.lowering.evaluate import evaluate


def row_ops():
    b = Builder()
    x = b.input(70, 200)
    soft = b.op(ops.Softmax, "softmax", x)
    added = b.op(ops.Add, "add", b.op(ops.Gelu, "gelu", soft), x)
    placed = b.op(ops.Add, "positions", added, b.param("table", 70, 200))
    return b.region(b.norm(placed, "norm"), soft, added)


def attention_of_inputs():
    """Cross-attention, 3 heads: keys and values packed by the host, the norm reads a padded head."""
    b = Builder()
    q, k, v = b.input(70, 192, "q"), b.input(130, 192, "k"), b.input(130, 192, "v")
    return b.region(b.norm(b.op(ops.Attention, "attention", q, k, v, 3), "norm"))


def keys_wanted_twice():
    """Keys that are an output as well, values from a norm, an attention over another attention's result."""
    b = Builder()
    x = b.input(100, 128)
    q, k = b.linear(x, 128, "q"), b.linear(x, 128, "k", bias=False)
    first = b.op(ops.Attention, "first", q, k, b.norm(x, "norm"), 2, scale=0.2)
    second = b.op(ops.Attention, "second", first, k, first, 2)
    return b.region(b.linear(second, 128, "out", residual=first, transposed=True), k)


def one_value_is_q_k_and_v():
    b = Builder()
    y = b.linear(b.input(80, 320), 320, "proj")
    return b.region(b.op(ops.Add, "add", b.op(ops.Attention, "attention", y, y, y, 5), y))


def convolution_with_stride():
    b = Builder()
    return b.region(b.conv(b.input(101, 40), 96, "conv", stride=2, gelu=True))


def convolution_alone_and_its_input():
    b = Builder()
    x = b.input(60, 100)
    return b.region(b.conv(x, 64, "conv"), x)


def convolutions_with_an_odd_length():
    b = Builder()
    x = b.conv(b.conv(b.input(131, 24), 80, "conv1", gelu=True), 80, "conv2", stride=2, gelu=True)
    return b.region(b.linear(x, 70, "head"))


def narrow_wide_narrow():
    b = Builder()
    x = b.input(5, 300)
    return b.region(b.linear(b.linear(x, 1000, "wide", gelu=True), 300, "narrow", residual=x))


def bert_layer():
    """Post-norm, attention over 128 tokens, 4 heads."""
    b = Builder()
    x = b.input(128, 256)
    q, k, v = (b.linear(x, 256, name) for name in "qkv")
    x = b.norm(b.linear(b.op(ops.Attention, "attention", q, k, v, 4), 256, "out", residual=x), "norm1")
    return b.region(b.norm(b.linear(b.linear(x, 512, "up", gelu=True), 256, "down", residual=x), "norm2"))


def encoder_two_layers():
    return whisper(2, 128, 2, 50)


def encoder_of_tiny_width():
    return whisper(1, 384, 6, 70, mel=128)


def long_context():
    """Three row groups, one head left over for four columns."""
    return whisper(1, 64, 1, 600)


REGIONS = [
    row_ops, attention_of_inputs, keys_wanted_twice, one_value_is_q_k_and_v, convolution_with_stride,
    convolution_alone_and_its_input, convolutions_with_an_odd_length, narrow_wide_narrow, bert_layer,
    encoder_two_layers, encoder_of_tiny_width, long_context,
]  # fmt: skip


@pytest.mark.parametrize("make", REGIONS, ids=lambda make: make.__name__)
def test_results_are_right_and_the_same_on_all_columns(make):
    region = make()
    params, inputs = random_params(region), random_inputs(region)
    expected = evaluate(region, params, inputs)
    by_columns = {c: run(lowering.lower(region, columns=c), params, inputs) for c in (4, 2, 1)}
    for ours, theirs in zip(by_columns[4], expected):
        assert ours.shape == theirs.shape
        assert cosine(ours, theirs) > 0.9999
    for columns in (2, 1):
        assert all(np.array_equal(a, b) for a, b in zip(by_columns[columns], by_columns[4]))


def test_scheduling_rules_hold_in_every_command_of_an_encoder():
    program = lowering.lower(whisper(4, 384, 6, 1500))
    queues = {}
    named = set()
    for command in program.commands:
        if isinstance(command, MaskWrite):
            named.add((command.column, command.address))
            assert (command.value, command.mask) == (0xF00, 0x1F00)
            continue
        key = (command.column, command.direction, command.channel)
        queue = queues.setdefault(key, [])
        if isinstance(command, Dma):
            assert command.token
            assert (command.column, CONTROL[command.direction, command.channel]) in named
            queue.append(command.bd)
            assert len(queue) <= 4
            live = [bd for other, bds in queues.items() if other[0] == command.column for bd in bds]
            assert len(live) == len(set(live)) <= 14
        else:
            assert isinstance(command, Wait)
            queue.pop(0)
    assert not any(queues.values())


def test_next_steps_headers_are_pushed_before_the_step_before_has_ended():
    program = lowering.lower(whisper(4, 384, 6, 1500))
    early = sum(a.commands[1] > b.commands[0] for a, b in zip(program.steps, program.steps[1:]))
    assert early == len(program.steps) - 1


def test_q_k_v_projections_are_one_product():
    names = [op.name for op in lowering.lower(whisper(1, 128, 2, 50)).steps]
    assert "layers.0.self_attn.q_proj+k_proj+v_proj" in names
    assert len(names) == 13


def test_two_programs_share_one_activation_plan_by_liveness():
    program = lowering.lower(whisper(6, 512, 8, 1500))
    total = sum(b.blocks for b in program.memory.buffers if b.arg == 1) * 8192
    assert program.activations_bytes <= 16 << 20 < total


def test_programs_are_kept():
    region = whisper(1, 128, 2, 50)
    assert lowering.lower(region) is lowering.lower(whisper(1, 128, 2, 50))
    assert lowering.lower(region, columns=2) is not lowering.lower(region)
