"""Nothing depends on the process's defaults, nor on tensors having data: as aot_eager."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, compiled
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from torch_xdna.devices.emulator import EmulatorExecutable, native_bf16


class Model(nn.Module):
    """Every kind of op and of parameter, and a layer_norm without any."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.no_bias = nn.Linear(64, 64), nn.Linear(64, 64, bias=False)
        self.norm, self.plain_norm = nn.LayerNorm(64), nn.LayerNorm(64, elementwise_affine=False)
        self.conv, self.position = nn.Conv1d(64, 64, 3, padding=1), nn.Parameter(torch.randn(10, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv(x.transpose(1, 2))).transpose(1, 2) + self.position
        x = x + self.no_bias(F.gelu(self.linear(self.norm(x))))
        heads = self.plain_norm(x).unflatten(-1, (1, 64)).transpose(1, 2)
        return F.softmax(F.scaled_dot_product_attention(heads, heads, heads), -1).transpose(1, 2).flatten(2)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


DEFAULTS = {
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "meta": lambda: default_device("meta"),
    "with meta": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("multiplies", ["fp32", "bf16"])
@pytest.mark.parametrize("name", DEFAULTS)
@torch.no_grad()
def test_defaults_during_the_first_call(name: str, multiplies: str, monkeypatch) -> None:
    monkeypatch.setenv(native_bf16.SWITCH, multiplies)
    module, x = Model().eval(), torch.randn(2, 10, 64)
    expected, run = module(x), compiled(module)
    with DEFAULTS[name]():
        assert_close(run(x), expected)
    assert_close(run(x), expected)
    with DEFAULTS[name]():
        assert_close(run(x), expected)


@torch.no_grad()
def test_a_failed_packing_is_not_kept(monkeypatch) -> None:
    pack, calls = EmulatorExecutable.pack, []

    def failing_once(self, params):
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError("no memory today")
        return pack(self, params)

    monkeypatch.setattr(EmulatorExecutable, "pack", failing_once)
    module, x = Model().eval(), torch.randn(2, 10, 64)
    run = compiled(module)
    with pytest.raises(MemoryError):
        run(x)
    assert_close(run(x), module(x))


@torch.no_grad()
def test_a_meta_model() -> None:
    module, run = Model().eval(), None
    with torch.device("meta"):
        module, x = Model().eval(), torch.randn(2, 10, 64)
    run = compiled(module)
    assert run(x).shape == module(x).shape and run(x).is_meta
    module = module.to_empty(device="cpu")
    for p in module.parameters():
        p.normal_(0, 0.1)
    x = torch.randn(2, 10, 64)
    assert_close(compiled(module)(x), module(x))


@torch.no_grad()
def test_under_fake_tensor_mode() -> None:
    module, x = Model().eval(), torch.randn(2, 10, 64)
    run = compiled(module)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        found = run(mode.from_tensor(x))
        assert type(found) is type(mode.from_tensor(x)) and found.shape == x.shape
    assert_close(run(x), module(x))


@torch.no_grad()
def test_compiled_first_and_then_under_fake_tensor_mode() -> None:
    module, x = Model().eval(), torch.randn(2, 10, 64)
    run = compiled(module)
    assert_close(run(x), module(x))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert run(mode.from_tensor(x)).shape == x.shape
    assert_close(run(x), module(x))
