"""Each refusal: the op runs eager with a right result, and the report gives its reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comparing import compiled

import torch_xdna


def rand(*shape):
    return torch.randn(shape)


def causal(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def masked_by_hand(q, k, v):
    mask = torch.full((20, 20), float("-inf")).triu(1)
    return torch.softmax(q @ k.transpose(-2, -1) / 8 + mask, -1) @ v


def qkv(*shape):
    return tuple(rand(*shape) for _ in range(3))


# name: (function, arguments, words of the reason)
REFUSALS = {
    "attention mask": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
        (*qkv(2, 3, 20, 64), torch.ones(20, 20).tril().bool()),
        "its attention is masked, the device attends to every key",
    ),
    "causal attention": (causal, qkv(2, 3, 20, 64), "its attention is causal"),
    "attention masked by hand": (masked_by_hand, qkv(2, 3, 20, 64), "its attention is masked"),
    "head size": (F.scaled_dot_product_attention, qkv(2, 3, 20, 32), "its head size is 32, the device's attention has 64"),
    "tanh gelu": (lambda x: F.gelu(x, approximate="tanh"), (rand(4, 8),), "use approximate='none'"),
    "softmax over rows": (lambda x: torch.softmax(x, 0), (rand(4, 8),), "not over the last dimension"),
    "wide softmax": (lambda x: torch.softmax(x, -1), (rand(2, 5000),), "its width 5000 exceeds the device's limit of 4096"),
    "wide layer_norm": (lambda x: F.layer_norm(x, (3000,)), (rand(2, 3000),), "limit of 2048 for layer_norm"),
    "layer_norm over two dimensions": (lambda x: F.layer_norm(x, (4, 8)), (rand(2, 4, 8),), "normalises over 2 dimensions"),
    "statistics of layer_norm": (
        lambda x: torch.native_layer_norm(x, (8,), None, None, 1e-5)[:2], (rand(2, 4, 8),), "its statistics are used"
    ),
    "product of activations": (
        lambda x, y: F.gelu(x) @ F.gelu(y), (rand(2, 4, 8), rand(2, 8, 4)), "activations only within attention"
    ),
    "mm of activations": (lambda x, y: F.gelu(x) @ F.gelu(y), (rand(4, 8), rand(8, 4)), "activations only within attention"),
    "weight per batch entry": (torch.bmm, (rand(2, 4, 8), rand(2, 8, 4)), "each entry of the batch has a weight of its own"),
    "bias computed in the graph": (
        lambda x, w, b: F.linear(x, w, b.sin()), (rand(4, 8), rand(6, 8), rand(6)), "its bias is computed in the graph"
    ),
    "addmm with factors": (
        lambda b, x, w: torch.addmm(b, x, w, alpha=2), (rand(6), rand(4, 8), rand(8, 6)), "alpha or beta other than 1"
    ),
    "addmm of a matrix": (torch.addmm, (rand(4, 6), rand(4, 8), rand(8, 6)), "write it as x @ w + matrix"),
    "add with a factor": (lambda x, y: torch.add(x, y, alpha=2), (rand(4, 8), rand(4, 8)), "alpha other than 1"),
    "add of a number": (lambda x: x + 1, (rand(4, 8),), "it adds a number"),
    "add that broadcasts": (
        lambda x, y: F.gelu(x) + F.gelu(y), (rand(4, 8), rand(8)), "broadcasts one of two activations"
    ),
    "factor outside attention": (lambda x: F.gelu(x) * 3, (rand(4, 8),), "only within attention, as its scale"),
    "grouped conv1d": (lambda x, w: F.conv1d(x, w, padding=1, groups=2), (rand(2, 4, 9), rand(8, 2, 3)), "groups 2"),
    "transposed conv1d": (lambda x, w: F.conv_transpose1d(x, w, padding=1), (rand(2, 4, 9), rand(4, 8, 3)), "transposed"),
    "float64": (F.gelu, (rand(4, 8).double(),), "its dtype is float64"),
    "integers": (torch.add, (torch.arange(4), torch.arange(4)), "its dtype is int64"),
    "empty": (F.gelu, (rand(0, 8),), "it is empty"),
    "no dimensions": (F.gelu, (rand(),), "it has no dimensions"),
    "no such op": (torch.relu, (rand(4, 8),), "the device has no relu"),
    "copy between dtypes": (lambda x: torch.cumsum(F.gelu(x).double(), -1), (rand(4, 8),), "it copies a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name):
    fn, args, reason = REFUSALS[name]
    with torch.no_grad():
        actual, expected = compiled(fn)(*args), fn(*args)
    report = torch_xdna.reports()[0]
    reasons = [row.reason for row in report.rows if row.where == "eager"]
    assert any(reason in r for r in reasons), reasons
    torch.testing.assert_close(actual, expected, atol=0.1, rtol=0.05)


def test_dropout_in_attention():
    def fn(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)

    report = torch_xdna.explain(fn, *qkv(2, 3, 20, 64))
    assert "its attention has dropout: call model.eval()" in [row.reason for row in report.rows]


def test_random_numbers_come_in_eagers_order():
    def fn(x, w):
        a = F.dropout(F.linear(x, w), 0.5)
        return a + torch.rand_like(x), F.dropout(x, 0.5)

    x, w = rand(6, 16), rand(16, 16)
    with torch.no_grad():
        torch.manual_seed(1)
        expected = fn(x, w)
        torch.manual_seed(1)
        actual = compiled(fn)(x, w)
    for a, e in zip(actual, expected):
        torch.testing.assert_close(a, e, atol=0.2, rtol=0.05)
    assert torch.equal(actual[1], expected[1])


def test_symbolic_columns():
    fn = compiled(lambda x: F.softmax(x, -1))
    with torch.no_grad():
        for columns in (5, 6, 7):
            x = rand(2, 16, columns)
            torch.testing.assert_close(fn(x), F.softmax(x, -1), atol=0.1, rtol=0.05)
    reasons = [row.reason for report in torch_xdna.reports() for row in report.rows]
    assert any("compile with dynamic=False" in r for r in reasons)


def test_a_device_that_refuses_a_region_leaves_it_eager_with_its_words(monkeypatch):
    from torch_xdna.devices.emulator import EmulatorDevice
    from torch_xdna.lowering.errors import LimitError
    from torch_xdna.lowering.ops import Softmax

    prepare = EmulatorDevice.prepare

    def picky(self, region):
        if any(isinstance(op, Softmax) for op in region.ops):
            raise LimitError("softmax width: no softmax today")
        return prepare(self, region)

    monkeypatch.setattr(EmulatorDevice, "prepare", picky)
    x, w = rand(6, 16), rand(16, 16)

    def fn(x):
        return torch.softmax(torch.sin(F.linear(x, w)), -1)

    with torch.no_grad():
        torch.testing.assert_close(compiled(fn)(x), fn(x), atol=0.05, rtol=0.05)
    (report,) = torch_xdna.reports()
    assert report.regions == 1
    assert [r.reason for r in report.rows if "softmax" in r.op] == ["softmax width: no softmax today"]
