"""An overlay that was built with fewer kernels: what it lacks runs eager with that reason, the rest on the device."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

import torch_xdna
from torch_xdna.cli.explain import command as explain_command
from torch_xdna.devices import select
from torch_xdna.devices.npu import overlay as overlay_file
from torch_xdna.errors import FallbackError
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.overlay.variants import FULL, LEAN, PRODUCTS, Variant


def _xclbin(folder: Path, variant: Variant, columns: int = 1) -> str:
    """A file that looks like that variant's xclbin, to everything but XRT."""
    name = overlay_file.kernel_name(columns, variant).encode()
    content = bytearray(b"xclbin2\0" + bytes(400) + name)
    content[304:312] = struct.pack("<Q", len(content))
    path = folder / f"{variant.name}.xclbin"
    path.write_bytes(content)
    return str(path)


def _options(folder: Path, variant: Variant) -> dict:
    return {"device": "array", "columns": 1, "overlay": _xclbin(folder, variant)}


class Block(nn.Module):
    """One attention and one feed-forward with residuals, as in Whisper: every GELU and addition is a product's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.up, self.down = nn.LayerNorm(64), nn.Linear(64, 128), nn.Linear(128, 64)
        self.q, self.k, self.v, self.out = (nn.Linear(64, 64) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.norm(x)
        q, k, v = (layer(n).view(1, -1, 1, 64).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(x)))


@pytest.mark.parametrize(
    ("variant", "eager"), [(FULL, 0), (LEAN, 0), (PRODUCTS, 1)], ids=lambda v: getattr(v, "name", "")
)
def test_a_block_runs_as_far_as_the_overlay_goes(tmp_path: Path, variant: Variant, eager: int) -> None:
    block, x = Block().eval(), torch.randn(1, 70, 64)
    with torch.no_grad():
        compiled = torch.compile(block, backend="xdna", options=_options(tmp_path, variant))
        result = compiled(x)
        torch.testing.assert_close(result, block(x), rtol=0, atol=0.06)
    (report,) = torch_xdna.reports()
    rows = [row for row in report.rows if row.where == "eager"]
    assert len(rows) == eager and report.dispatches == report.regions == 1 + eager
    for row in rows:
        assert "without attention (variant 'products'" in row.reason and "scaled_dot" in row.op


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("softmax", lambda x, y: torch.softmax(x, -1)),
        ("gelu", lambda x, y: F.gelu(x)),
        ("add", lambda x, y: x + y),
    ],
)
def test_a_row_operation_alone_is_refused_by_name(tmp_path: Path, kind: str, function: Callable) -> None:
    x, y = torch.randn(2, 70, 64)
    options = _options(tmp_path, LEAN)
    with torch.no_grad(), pytest.warns(UserWarning, match=f"built without {kind} .*build-overlay"):
        result = torch.compile(function, backend="xdna", options=options)(x, y)
    torch.testing.assert_close(result, function(x, y), rtol=0, atol=0)
    with torch.no_grad(), pytest.raises(FallbackError, match=f"built without {kind}"):
        torch._dynamo.reset()
        torch.compile(function, backend="xdna", options={**options, "fallback": "error"})(x, y)


def test_a_region_given_by_hand_is_refused(tmp_path: Path) -> None:
    (region,) = torch_xdna.capture_regions(F.gelu, torch.randn(70, 64))
    device = select("array", columns=1, overlay=_xclbin(tmp_path, LEAN))
    with pytest.raises(LoweringError, match="built without gelu"):
        device.prepare(region)


def test_explain_takes_the_installed_overlay_into_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, x = Block().eval(), torch.randn(1, 70, 64)
    assert torch_xdna.explain(block, x).eager_ops == 0
    monkeypatch.setenv(overlay_file.VARIABLE, _xclbin(tmp_path, PRODUCTS, columns=4))
    report = torch_xdna.explain(block, x)
    assert ["without attention" in row.reason for row in report.rows if row.where == "eager"] == [True]
    said = CliRunner().invoke(explain_command, ["tiny"], catch_exceptions=False).output
    assert "the installed overlay is 'products', without softmax, gelu, add, attention" in said


def test_a_device_that_refuses_an_op_with_several_results_is_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is matched is the result that is picked; what must be banned is the op."""
    asked = []

    def refuse(self: object, region: object) -> None:
        asked.append(region)
        assert len(asked) < 5
        raise LoweringError("layer_norm: not today")

    monkeypatch.setattr("torch_xdna.devices.emulator.EmulatorDevice.prepare", refuse)
    norm, x = nn.LayerNorm(64).eval(), torch.randn(70, 64)
    with torch.no_grad(), pytest.warns(UserWarning, match="not today"):
        result = torch.compile(norm, backend="xdna", options={"device": "emulator"})(x)
    torch.testing.assert_close(result, norm(x), rtol=0, atol=0)
    assert len(asked) == 1
