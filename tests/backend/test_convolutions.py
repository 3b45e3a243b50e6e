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


@pytest.mark.parametrize(
    ("conv", "shape", "why"),
    [
        (nn.Conv2d(3, 8, 4, stride=4), (1, 3, 10, 8), "no whole number of patches of 4 x 4"),
        (nn.Conv2d(3, 8, 3, stride=2), (1, 3, 9, 9), "only where the stride is the kernel"),
        (nn.Conv2d(4, 8, 2, stride=2, groups=2), (1, 4, 4, 4), "groups 2"),
        (nn.Conv2d(4, 8, 2, stride=2, padding=1), (1, 4, 4, 4), "padding [1, 1]"),
        (nn.Conv1d(8, 8, 1, stride=2), (1, 8, 9), "stride 1 with kernel 1"),
        (nn.Conv3d(3, 8, 2, stride=2), (1, 3, 4, 4, 4), "3 dimensions"),
    ],
)
def test_refused(conv: nn.Module, shape: tuple[int, ...], why: str) -> None:
    (row,) = torch_xdna.explain(conv.eval(), torch.randn(shape)).rows
    assert row.where == "eager" and why in row.reason
