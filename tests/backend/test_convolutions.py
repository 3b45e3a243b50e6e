"""Convolutions that are matrix products: kernel 1, and kernel = stride; every one of equal sizes on purpose."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, assert_like_eager, only_report
from torch import Tensor, nn

import torch_xdna


@pytest.mark.parametrize("clips", [1, 2, 8])
def test_kernel_1_is_a_linear_layer(clips: int) -> None:
    """In a region with what comes before and after, over (batch, channels, frames) of equal sizes."""
    conv, norm = nn.Conv1d(8, 8, 1), nn.LayerNorm(8)

    def fn(x: Tensor) -> Tensor:
        return F.gelu(conv(norm(x).transpose(1, 2))).transpose(1, 2) + x

    report = assert_like_eager(fn, torch.randn(clips, 8, 8), regions=1, eager_ops=0)
    assert [type(op).__name__ for op in report.region_list[0].ops] == ["LayerNorm", "Linear"]


def test_kernel_1_of_a_spectrogram() -> None:
    conv = nn.Conv1d(80, 96, 1, bias=False)
    assert_like_eager(conv, torch.randn(2, 80, 33), regions=1, eager_ops=0)


@pytest.mark.parametrize(
    ("size", "patch"),
    [((8, 8), (4, 4)), ((8, 12), (4, 2)), ((4, 4), (4, 4)), ((6, 6), (1, 6)), ((3, 3), (1, 1))],
)
@pytest.mark.parametrize("clips", [1, 3, 8])
def test_patches(size: tuple[int, int], patch: tuple[int, int], clips: int) -> None:
    """A patch embedding, and the tokens that a vision model makes of it."""
    conv = nn.Conv2d(3, 8, patch, stride=patch)
    assert_like_eager(
        lambda x: F.gelu(conv(x)).flatten(2).transpose(1, 2),
        torch.randn(clips, 3, *size),
        regions=1,
        eager_ops=0,
    )


def test_patches_of_what_was_computed() -> None:
    """Channels last, transposed pictures, a scale before: the tensor enters as it is."""
    conv = nn.Conv2d(4, 8, 2, stride=2).eval()
    x = torch.randn(4, 4, 4, 4)
    for fn in (
        lambda x: conv(x.transpose(2, 3)),
        lambda x: conv(x.to(memory_format=torch.channels_last)),
        lambda x: conv(x * 0.5),
        lambda x: conv(x.transpose(0, 1)),
        lambda x: conv(conv(F.gelu(x)).flatten().view(2, 4, 4, 4)),
    ):
        torch._dynamo.reset()
        assert_like_eager(fn, x)


@torch.no_grad()
def test_on_the_array() -> None:
    one, patches = nn.Conv1d(64, 70, 1), nn.Conv2d(3, 64, 4, stride=4)

    def fn(x: Tensor) -> Tensor:
        return one(F.gelu(patches(x)).flatten(2)).mT

    x = torch.randn(2, 3, 16, 12)
    assert_close(torch.compile(fn, backend="xdna", options={"device": "array"})(x), fn(x))
    assert only_report().dispatches == 2


# name -> (a convolution, its input): kernels, strides, paddings, dilations; equal sizes where they could be mixed up.
WINDOWS = {
    "wav2vec2's first": (nn.Conv1d(1, 8, 10, stride=5), (2, 1, 203)),
    "wav2vec2's others": (nn.Conv1d(8, 8, 3, stride=2), (1, 8, 50)),
    "kernel 2, stride 2": (nn.Conv1d(8, 8, 2, stride=2), (8, 8, 9)),
    "Moonshine's": (nn.Conv1d(8, 16, 7, stride=3, bias=False), (2, 8, 40)),
    "kernel 1, stride 2": (nn.Conv1d(8, 8, 1, stride=2), (1, 8, 9)),
    "wide and padded": (nn.Conv1d(8, 8, 8, padding=4), (2, 8, 8)),
    "dilated": (nn.Conv1d(4, 8, 3, dilation=4, padding=4), (1, 4, 20)),
    "padded with kernel 1": (nn.Conv1d(4, 8, 1, padding=2), (1, 4, 8)),
    "all sizes equal": (nn.Conv1d(5, 5, 5, padding=2), (5, 5, 5)),
    "a spectrogram's stem": (nn.Conv2d(1, 8, 3, stride=2, padding=1), (2, 1, 20, 16)),
    "two dimensions of their own": (nn.Conv2d(3, 8, (3, 2), stride=(1, 2), padding=(2, 1)), (2, 3, 9, 7)),
    "dilated in one": (nn.Conv2d(3, 8, 3, dilation=(2, 1)), (1, 3, 9, 8)),
    "patches and a rest": (nn.Conv2d(3, 8, 4, stride=4), (1, 3, 10, 9)),
    "all sizes equal, conv2d": (nn.Conv2d(4, 4, 4, padding=2), (4, 4, 4, 4)),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str) -> None:
    conv, shape = WINDOWS[name]
    assert_like_eager(lambda x: F.gelu(conv(x)), torch.randn(shape), regions=1, eager_ops=0)


def test_windows_of_what_the_device_computed() -> None:
    """The second one begins a region of its own."""
    one, two = nn.Conv1d(8, 8, 3, stride=2), nn.Conv1d(8, 8, 2, stride=2)
    assert_like_eager(lambda x: two(F.gelu(one(x))), torch.randn(2, 8, 30), regions=2, eager_ops=0)


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_whispers_form_after_what_the_array_computed(stride: int) -> None:
    """The array can't shift rows: such a convolution begins a region, and takes nothing else off the device."""
    up, conv = nn.Linear(64, 64), nn.Conv1d(64, 64, 3, stride=stride, padding=1)

    def fn(x: Tensor) -> Tensor:
        return conv(F.gelu(up(x)).mT)

    x = torch.randn(1, 30, 64)
    assert_close(torch.compile(fn, backend="xdna", options={"device": "array"})(x), fn(x))
    assert only_report().regions == 2 and only_report().eager_ops == 0


@torch.no_grad()
def test_windows_of_any_length_on_the_array() -> None:
    one, two = nn.Conv1d(1, 8, 10, stride=5), nn.Conv1d(8, 8, 3, stride=2)

    def fn(x: Tensor) -> Tensor:
        return two(F.gelu(one(x))).mT

    run = torch.compile(fn, backend="xdna", dynamic=True, options={"device": "array"})
    for samples in (300, 900, 505):
        x = torch.randn(1, 1, samples)
        assert_close(run(x), fn(x))
    assert only_report().regions == 2 and only_report().eager_ops == 0


@pytest.mark.parametrize(
    ("conv", "shape", "why"),
    [
        (nn.Conv1d(8, 8, 3, padding=1, groups=8), (1, 8, 9), "groups 8"),
        (nn.Conv2d(4, 8, 2, stride=2, groups=2), (1, 4, 4, 4), "groups 2"),
        (nn.ConvTranspose1d(8, 8, 3), (1, 8, 9), "transposed"),
        (nn.Conv3d(3, 8, 2, stride=2), (1, 3, 4, 4, 4), "3 dimensions"),
    ],
)
def test_refused(conv: nn.Module, shape: tuple[int, ...], why: str) -> None:
    (row,) = torch_xdna.explain(conv.eval(), torch.randn(shape)).rows
    assert row.where == "eager" and why in row.reason
