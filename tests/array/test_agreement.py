"""The array's results against the emulator's, and against itself with other columns and after other runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from array_regions import SMALL, Prepared, attention, clip, layer_norm, linear, parameters, residual, softmax

from torch_xdna.devices.array import Simulator
from torch_xdna.devices.array.device import ArrayDevice
from torch_xdna.devices.emulator import EmulatorDevice
from torch_xdna.lowering import ops
from torch_xdna.lowering.overlay import overlay
from torch_xdna.lowering.whisper import EncoderConfig, encoder_region


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def on_emulator(region: ops.Region, seed: int = 0) -> list[np.ndarray]:
    executable = EmulatorDevice().prepare(region)
    packed = executable.pack({n: torch.from_numpy(p) for n, p in parameters(region, seed).items()})
    inputs = [torch.from_numpy(x)[None] for x in clip(region, seed + 1)]
    return [out[0].float().numpy() for out in executable.run(inputs, packed)]


# Beside the small ones: widths that end inside a block, many rows, one row, keys that end inside a block.
SHAPES = {
    **{name: make() for name, make in SMALL.items()},
    "one row": linear(rows=1, k=40, n=24),
    "gelu in the product": linear(rows=70, k=300, n=100, gelu=True),
    "residual inside a block": residual(rows=65, n=72),
    "narrow layer_norm": layer_norm(rows=40, cols=100),
    "layer_norm of one block": layer_norm(rows=3, cols=64),
    "widest layer_norm": layer_norm(rows=20, cols=2048),
    "wide softmax": softmax(rows=5, cols=1500),
    "attention of 70 keys": attention(rows=70, heads=1),
    "attention, 6 heads": attention(rows=130, heads=6),
}


@pytest.mark.parametrize("name", SHAPES)
def test_array_and_emulator_agree_on_every_column_count(name: str) -> None:
    region = SHAPES[name]
    (emulated,) = on_emulator(region)
    results = {}
    for columns in (4, 2, 1):
        (results[columns],), _ = Prepared.of(region, columns).run()
    assert np.isfinite(results[4]).all()
    assert cosine(results[4], emulated) >= 0.99999
    assert np.array_equal(results[4], results[2]) and np.array_equal(results[4], results[1])


def small_encoder(layers: int = 2, context: int = 80) -> ops.Region:
    """A whole Whisper encoder (both convolutions, positions if any, layers, last norm), with every layer's result."""
    region = encoder_region(EncoderConfig("small", layers=layers, width=128, heads=2, ffn=256), context)
    ends = tuple(op.out for op in region.ops if op.name.endswith(".fc2"))
    return ops.Region(
        region.values, region.inputs, (*ends, *region.outputs), region.params, region.ops, region.name
    )


def test_a_whole_small_encoder_layer_by_layer() -> None:
    region = small_encoder()
    emulated = on_emulator(region)
    results = {columns: Prepared.of(region, columns).run()[0] for columns in (4, 2, 1)}
    for ours, theirs in zip(results[4], emulated, strict=True):
        assert cosine(ours, theirs) >= 0.9999
    for columns in (1, 2):
        assert all(np.array_equal(a, b) for a, b in zip(results[4], results[columns]))


def test_programs_one_after_another_give_the_bits_of_a_fresh_array() -> None:
    """FIFO positions and core memories are left in whatever state by each; nothing may leak."""
    programs = [
        Prepared.of(SHAPES[name])
        for name in ("attention", "layer_norm", "residual", "softmax", "add", "linear")
    ]
    fresh = [p.run()[0] for p in programs]
    simulator = Simulator(overlay(4))
    order = [0, 1, 2, 3, 4, 5, 5, 4, 1, 0, 3, 2, 0, 0]
    for i in order:
        results, _ = programs[i].run(simulator)
        assert all(np.array_equal(a, b) for a, b in zip(results, fresh[i])), (i, "differs on a used array")
    assert simulator.configurations == 1


def test_two_encoders_on_one_array_twice() -> None:
    first, second = Prepared.of(small_encoder(1, 60), seed=3), Prepared.of(small_encoder(2, 40), seed=4)
    fresh = {id(p): p.run()[0] for p in (first, second)}
    simulator = Simulator(overlay(4))
    for prepared in (first, second, second, first):
        results, _ = prepared.run(simulator)
        assert all(np.array_equal(a, b) for a, b in zip(results, fresh[id(prepared)]))


def test_device_loops_over_clips_and_counts_dispatches() -> None:
    region = linear(rows=70, k=64, n=64)
    device = ArrayDevice(columns=2)
    executable = device.prepare(region)
    packed = executable.pack({n: torch.from_numpy(p).double() for n, p in parameters(region).items()})
    clips = [clip(region, seed)[0] for seed in (1, 2, 3)]
    batch = torch.from_numpy(np.stack(clips)).to(torch.bfloat16)
    (out,) = executable.run([batch.transpose(1, 2).contiguous().transpose(1, 2)], packed)
    assert out.shape == (3, 70, 64)
    alone = [executable.run([batch[i : i + 1]], packed)[0][0] for i in range(3)]
    assert all(torch.equal(out[i], alone[i]) for i in range(3))
    stats = executable.stats
    assert (stats.dispatches, stats.overlay_changes) == (6, 0)
    assert stats.cycles > 0 and stats.kernel_calls > 0 and stats.modelled_seconds > 0


def test_two_threads_share_one_array() -> None:
    from concurrent.futures import ThreadPoolExecutor

    device = ArrayDevice()
    streams = []
    for region in (linear(rows=70), attention(rows=64, heads=2)):
        executable = device.prepare(region)
        packed = executable.pack({n: torch.from_numpy(p) for n, p in parameters(region).items()})
        inputs = [torch.from_numpy(x)[None] for x in clip(region)]
        streams.append((executable, inputs, packed, executable.run(inputs, packed)))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda w: (w[0].run(w[1], w[2]), w[3]), streams * 3))
    assert all(torch.equal(a, b) for got, expected in results for a, b in zip(got, expected))


@pytest.mark.parametrize(
    "config",
    [EncoderConfig("medium", 1, 1024, 16, 4096), EncoderConfig("large-v3", 1, 1280, 20, 5120, mel=128)],
    ids=lambda config: config.name,
)
def test_a_layer_of_the_larger_models(config: EncoderConfig) -> None:
    """Their widths and heads, 128 mel channels; a short context, which only repeats rows."""
    region = encoder_region(config, 100)
    (result,), _ = Prepared.of(region).run()
    (emulated,) = on_emulator(region)
    assert np.isfinite(result).all() and cosine(result, emulated) >= 0.9999


@pytest.mark.slow
def test_whole_whisper_tiny_against_the_emulator() -> None:
    """Context 1500, all four layers: 128,000 kernel calls; every layer and the end."""
    region = encoder_region(EncoderConfig("whisper-tiny", layers=4, width=384, heads=6, ffn=1536), 1500)
    ends = tuple(op.out for op in region.ops if op.name.endswith(".fc2"))
    region = ops.Region(
        region.values, region.inputs, (*ends, *region.outputs), region.params, region.ops, region.name
    )
    results, stats = Prepared.of(region).run()
    for ours, theirs in zip(results, on_emulator(region), strict=True):
        assert cosine(ours, theirs) >= 0.9999
    assert stats.kernel_calls > 120_000
