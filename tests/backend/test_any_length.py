"""Any length from one graph: two compiles at most, the same dispatches, the bits of a fixed-length compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close
from torch import Tensor, nn
from torch._dynamo.utils import counters

import torch_xdna

WIDTH = 128


class Layer(nn.Module):
    """A transformer's layer with two heads of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (f(y).unflatten(-1, (2, 64)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(x)))


class Spectrogram(nn.Module):
    """Whisper's stem with positions cut to the length, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(80, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.randn(600, WIDTH))
        self.layer = Layer()

    def forward(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        return self.layer(x + self.positions[: x.shape[1]])


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def compile_with(module: Callable, device: str, **options) -> Callable:
    return torch.compile(module, backend="xdna", options={"device": device}, **options)


def compiles() -> int:
    return counters["stats"]["unique_graphs"]


def fixed(module: nn.Module, device: str, x: Tensor) -> Tensor:
    torch._dynamo.reset()
    return compile_with(module, device, dynamic=False)(x)


def results(module: nn.Module, device: str, inputs: list[Tensor]) -> list[Tensor]:
    """Of one compiled module; it must not have been compiled more than twice, nor dispatch more than once a clip."""
    torch._dynamo.reset()
    counters.clear()
    run, found, before = compile_with(module, device), [], 0
    for x in inputs:
        found.append(run(x))
        now = sum(r.dispatches for r in torch_xdna.reports())
        assert now - before == (len(x) if device == "array" else 0)
        before = now
    assert compiles() <= 2
    assert all(r.regions == 1 and r.eager_ops <= 1 for r in torch_xdna.reports()), torch_xdna.reports()
    return found


def test_twenty_lengths_on_the_emulator() -> None:
    module = nn.Sequential(Layer(), Layer()).eval()
    lengths = [100, 2, 64, 65, 128, 127, 300, 3, 63, 200, 40, 41, 42, 190, 256, 257, 77, 30, 128, 301]
    inputs = [torch.randn(2, n, WIDTH) for n in lengths]
    for i, (x, found) in enumerate(zip(inputs, results(module, "emulator", inputs))):
        assert_close(found, module(x))
        assert i % 5 or torch.equal(found, fixed(module, "emulator", x)), x.shape


def test_lengths_of_a_bucket_and_beyond_on_the_array() -> None:
    module = Layer().eval()
    inputs = [torch.randn(1, n, WIDTH) for n in (50, 20, 64, 65)]
    for x, found in zip(inputs, results(module, "array", inputs)):
        assert_close(found, module(x))
        assert torch.equal(found, fixed(module, "array", x)), x.shape


def test_batch_and_length_change() -> None:
    module = Layer().eval()
    counters.clear()
    run = compile_with(module, "array", dynamic=True)
    for shape in ((2, 30), (3, 50), (5, 7), (2, 70)):
        x = torch.randn(*shape, WIDTH)
        assert_close(run(x), module(x))
    assert compiles() == 1


@pytest.mark.parametrize("device", ["emulator", "array"])
def test_convolutions_over_any_length(device: str) -> None:
    """(Below 20480 elements torch itself chooses another convolution and compiles again.)"""
    module = Spectrogram().eval()
    frames = (530, 390, 600, 401, 558) if device == "emulator" else (290, 270, 301)
    inputs = [torch.randn(1, 80, n) for n in frames]
    for x, found in zip(inputs, results(module, device, inputs)):
        assert_close(found, module(x))
        assert torch.equal(found, fixed(module, device, x)), x.shape


@pytest.mark.parametrize("device", ["emulator", "array"])
def test_elements_with_the_time_last(device: str) -> None:
    """(batch, channels, time): the device's columns are fixed, so the time becomes its rows."""

    def fn(x: Tensor) -> Tensor:
        return F.gelu(x) + x

    run = compile_with(fn, device)
    for shape in ((2, 5, 30), (2, 5, 70), (3, 5, 5)):
        x = torch.randn(shape)
        assert_close(run(x), fn(x))
    assert all(r.regions == 1 and r.eager_ops == 0 for r in torch_xdna.reports())


def test_sizes_that_equal_each_other() -> None:
    """As many rows as columns, heads or clips: the length is told from the place, not from the size."""
    module = Layer().eval()
    run = compile_with(module, "emulator", dynamic=True)
    for shape in ((2, 2), (64, 2), (2, 64), (2, 128), (128, 2)):
        x = torch.randn(*shape, WIDTH)
        assert_close(run(x), module(x))


def test_weights_are_packed_once_and_a_change_of_them_is_seen() -> None:
    module = Layer().eval()
    run = compile_with(module, "array", dynamic=True)
    x = torch.randn(1, 20, WIDTH)
    run(x)
    module.up.weight.mul_(-1)
    for n in (20, 21, 90):
        x = torch.randn(1, n, WIDTH)
        assert_close(run(x), module(x))


def test_a_length_that_the_device_cannot_take_runs_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_xdna.devices.emulator import EmulatorDevice
    from torch_xdna.lowering.errors import LimitError

    prepare = EmulatorDevice.prepare_length

    def short_ones(self, region, lengths):
        if region.values[0].rows > 100:
            raise LimitError("too long")
        return prepare(self, region, lengths)

    monkeypatch.setattr(EmulatorDevice, "prepare_length", short_ones)
    module = Layer().eval()
    run = compile_with(module, "emulator", dynamic=True)
    for n in (50, 150):
        x = torch.randn(1, n, WIDTH)
        assert_close(run(x), module(x))
    (report,) = torch_xdna.reports()
    (sentence,) = report.failures
    assert "150" in sentence and "too long" in sentence


def test_the_report_says_it() -> None:
    module = Layer().eval()
    compile_with(module, "emulator", dynamic=True)(torch.randn(1, 50, WIDTH))
    (report,) = torch_xdna.reports()
    assert "any length: lowered when a call needs it" in str(report)
