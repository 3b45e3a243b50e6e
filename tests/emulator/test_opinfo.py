"""PyTorch's own samples of each op through `torch.compile(backend="xdna")`, held to float64.

The measure is what bf16 costs in PyTorch itself: the same op in eager bf16. The result may be three times as far
from float64 as that, plus one rounding to bf16 (where eager bf16 happens to hit the exact value).
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.nn import functional as F
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import SampleInput

import torch_xdna

NAMES = {
    "linear": "nn.functional.linear",
    "addmm": "addmm",
    "mm": "mm",
    "bmm": "bmm",
    "layer_norm": "nn.functional.layer_norm",
    "softmax": "softmax",
    "gelu": "nn.functional.gelu",
    "attention": "nn.functional.scaled_dot_product_attention",
    "conv1d": "nn.functional.conv1d",
    "add": "add",
}
# Ops of which the device takes no PyTorch sample (head size 10, padding other than 1, a matrix of its own per batch
# entry); they run eager inside the compiled function, and `taken` has samples in the device's form.
NOT_TAKEN = {"addmm", "bmm", "attention", "conv1d"}
TIMES_BF16 = 3
ONE_ROUNDING = 2.0**-9  # relative to the largest value of the result


def samples(name: str):
    for op in op_db:
        if op.name == NAMES[name]:
            for sample in op.sample_inputs("cpu", torch.float32):
                yield op, sample


def compiled(name: str, op):
    """The op behind the backend. PyTorch wraps attention in a function of its test module, which Dynamo skips."""
    function = F.scaled_dot_product_attention if name == "attention" else op.op

    def call(*args, **kwargs):
        return function(*args, **kwargs)

    torch._dynamo.reset()
    return torch.compile(call, backend="xdna", options={"device": "emulator"})


def converted(value, dtype: torch.dtype):
    """A sample with its floating tensors, and a dtype if it names one, in another precision."""
    if isinstance(value, torch.Tensor):
        return value.detach().to(dtype) if value.is_floating_point() else value
    if isinstance(value, torch.dtype):
        return dtype if value.is_floating_point else value
    if isinstance(value, (tuple, list)):
        return type(value)(converted(v, dtype) for v in value)
    if isinstance(value, dict):
        return {k: converted(v, dtype) for k, v in value.items()}
    return value


def is_random(sample) -> bool:
    return bool(sample.kwargs.get("dropout_p"))


def check(op, sample, fn) -> None:
    call = (sample.input, *sample.args), sample.kwargs
    args64, kwargs64 = converted(call, torch.float64)
    exact = op.op(*args64, **kwargs64)
    args16, kwargs16 = converted(call, torch.bfloat16)
    eager = op.op(*args16, **kwargs16).double()
    result = fn(*call[0], **call[1])
    assert torch_xdna.reports(), "Dynamo did not compile it"

    plain = op.op(*call[0], **call[1])
    assert (result.shape, result.dtype, result.stride()) == (plain.shape, plain.dtype, plain.stride())
    finite = torch.isfinite(exact)
    assert torch.equal(torch.isfinite(result), finite)
    if finite.any():
        error = (result.double() - exact)[finite].abs().max()
        floor = ONE_ROUNDING * exact[finite].abs().max()
        allowed = TIMES_BF16 * (eager - exact)[finite].nan_to_num(0.0).abs().max() + floor
        assert error <= allowed, f"{sample}: error {error:.2e}, allowed {allowed:.2e}"


@pytest.mark.parametrize("name", NAMES)
def test_samples(name: str) -> None:
    """Every sample; and at least one of them did run on the device."""
    checked = regions = 0
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for op, sample in samples(name):
            if is_random(sample):
                continue
            check(op, sample, compiled(name, op))
            checked += 1
            regions += sum(report.regions for report in torch_xdna.reports())
    torch._dynamo.reset()
    assert checked > 0
    assert regions > 0 or name in NOT_TAKEN, f"no sample of {name} ran on the device"


def taken(name: str):
    """Samples that the device takes, for the ops whose own samples it refuses."""
    r = torch.randn
    if name == "addmm":
        yield from (SampleInput(r(n), args=(r(m, k), r(k, n))) for m, k, n in ((3, 64, 64), (70, 130, 65)))
    elif name == "attention":
        for batch, heads, tq, tk in ((1, 1, 5, 5), (2, 3, 70, 33), (1, 2, 130, 300)):
            k, v = r(batch, heads, tk, 64), r(batch, heads, tk, 64)
            yield SampleInput(r(batch, heads, tq, 64), args=(k, v))
    else:
        for stride, frames in ((1, 9), (2, 9), (2, 100)):
            args = (r(32, 16, 3), r(32))
            yield SampleInput(r(2, 16, frames), args=args, kwargs={"stride": stride, "padding": 1})


@pytest.mark.parametrize("name", ["addmm", "attention", "conv1d"])
def test_samples_in_the_devices_form(name: str) -> None:
    """The same comparison for these; each of them is one region."""
    torch.manual_seed(0)
    op = next(op for op in op_db if op.name == NAMES[name])
    for sample in taken(name):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(op, sample, compiled(name, op))
        (report,) = torch_xdna.reports()
        assert report.regions == 1, str(report)
    torch._dynamo.reset()
