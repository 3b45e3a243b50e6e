"""The contract between torch.compile and a backend, as PyTorch's own tests hold their backends to it."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, compiled, only_report
from torch import nn
from torch._dynamo.backends.registry import list_backends, lookup_backend
from torch._dynamo.testing import CompileCounterWithBackend

import torch_xdna
from torch_xdna.errors import DeviceError, FallbackError, SettingsError


def mlp(dim: int = 64) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, 96), nn.GELU(), nn.Linear(96, dim), nn.LayerNorm(dim)).eval()


def test_registered():
    assert "xdna" in list_backends()
    assert lookup_backend("xdna").__module__ == "torch_xdna.backend"


def test_works_without_any_import_of_ours():
    code = (
        "import torch, warnings; warnings.simplefilter('ignore')\n"
        "m = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU())\n"
        "x = torch.randn(3, 8)\n"
        "with torch.no_grad():\n"
        "    y = torch.compile(m, backend='xdna', options={'device': 'emulator'})(x)\n"
        "    assert (y - m(x)).abs().max() < 0.05\n"
        "import sys\n"
        "assert 'torch_xdna.backend' in sys.modules and 'transformers' not in sys.modules\n"
        "assert 'rich' not in sys.modules and 'click' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light():
    code = (
        "import sys, torch_xdna, torch_xdna.devices\n"
        "loaded = {m.partition('.')[0] for m in sys.modules}\n"
        "assert not loaded & {'torch', 'transformers', 'pyxrt', 'numpy', 'rich', 'click', 'matplotlib'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compile_counter():
    counter = CompileCounterWithBackend("xdna")
    model, x = mlp(), torch.randn(2, 5, 64)
    with torch.no_grad():
        fn = torch.compile(model, backend=counter)
        assert_close(fn(x), model(x))
        fn(x)
    assert counter.frame_count == 1


def test_fullgraph_and_dynamo_explain():
    model, x = mlp(), torch.randn(2, 5, 64)
    with torch.no_grad():
        torch.compile(model, backend="xdna", fullgraph=True, options={"device": "emulator"})(x)
        assert torch._dynamo.explain(model)(x).graph_break_count == 0


def test_graph_breaks():
    def fn(x, w):
        x = F.gelu(F.linear(x, w))
        torch._dynamo.graph_break()
        return F.linear(x, w)

    x, w = torch.randn(4, 16), torch.randn(16, 16) / 4
    with torch.no_grad():
        assert_close(compiled(fn)(x, w), fn(x, w))
    assert [r.regions for r in torch_xdna.reports()] == [1, 1]
    both = torch_xdna.explain(fn, x, w)
    assert (both.regions, both.compiles, both.eager_ops) == (2, 2, 0)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_contexts(context):
    model, x = mlp(), torch.randn(2, 5, 64)
    fn = compiled(model)
    with context():
        assert_close(fn(x), model(x))
    assert only_report().summary().endswith("1 region, 0 eager ops")


def test_frozen_parameters_need_no_context():
    model, x = mlp().requires_grad_(False), torch.randn(2, 5, 64)
    assert_close(compiled(model)(x), model(x))
    assert only_report().regions == 1


def test_contexts_one_after_the_other():
    """First inference_mode, then no_grad, then with gradients: each compiles, none sees the other's tensors wrongly."""
    model, x = mlp(), torch.randn(2, 5, 64)
    fn, expected = compiled(model), model(x).detach()
    with torch.inference_mode():
        assert_close(fn(x), expected)
    with torch.no_grad():
        assert_close(fn(x), expected)
    assert_close(fn(x).detach(), expected)


def test_training_runs_eager_and_says_so_once():
    model, x = mlp(), torch.randn(2, 5, 64)
    fn = compiled(model)
    with pytest.warns(UserWarning, match="needs gradients") as said:
        y = fn(x)
        fn(torch.randn(3, 5, 64))
    assert len([w for w in said if "gradients" in str(w.message)]) == 1
    assert torch.equal(y, model(x))
    y.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    report = torch_xdna.reports()[0]
    assert report.regions == 0 and report.eager_ops > 0
    assert {row.reason for row in report.rows} == {report.rows[0].reason}


def test_training_and_inference_of_one_model():
    model, x = mlp(), torch.randn(2, 5, 64)
    fn = compiled(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        fn(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            assert_close(fn(x), model(x))


def test_autocast():
    model, x = mlp(), torch.randn(2, 5, 64)
    fn = compiled(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(fn(x), model(x))
    assert only_report().regions == 1


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return x + self.inner(x)


def test_module_compile_keeps_state_dict_keys():
    model, x = Residual(), torch.randn(2, 5, 64)
    keys = list(model.state_dict())
    expected = model(x).detach()
    model.compile(backend="xdna", options={"device": "emulator"})
    with torch.no_grad():
        assert_close(model(x), expected)
    assert list(model.state_dict()) == keys
    assert only_report().summary() == "Residual: 1 region, 0 eager ops"


BAD_OPTIONS = [
    ({"devise": "emulator"}, "unknown option 'devise' (did you mean 'device'?)"),
    ({"device": "emulater"}, "did you mean 'emulator'?"),
    ({"fallback": "eror"}, "did you mean 'error'?"),
    ({"columns": 3}, "option 'columns' is 3; valid values: 1, 2, 4"),
    ({"columns": True}, "option 'columns' is True"),
    ({"device": ["npu"]}, "valid values: 'auto', 'npu', 'emulator', 'array'"),
    ({"overlay": 7}, "option 'overlay' is 7"),
    ({3: 4}, "unknown option '3'"),
    ({"columns": 4.0}, "option 'columns' is 4.0 (did you mean 4?)"),
    ({"columns": "4"}, "option 'columns' is '4' (did you mean 4?)"),
    ({"overlay": ""}, "must be the path of an xclbin as str, or None"),
    ({"device": None}, "option 'device' is None"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=[str(o) for o, _ in BAD_OPTIONS])
def test_options_are_checked(options, message):
    fn = torch.compile(lambda x: F.gelu(x), backend="xdna", options=options)
    with torch.no_grad(), pytest.raises(SettingsError) as error:
        fn(torch.randn(3))
    assert message in str(error.value)


def test_mode_is_refused():
    fn = torch.compile(lambda x: F.gelu(x), backend="xdna", mode="max-autotune")
    with torch.no_grad(), pytest.raises(SettingsError, match="mode='max-autotune' is Inductor's"):
        fn(torch.randn(3))


def test_a_device_that_is_not_here_is_an_error_with_a_remedy():
    fn = torch.compile(lambda x: F.gelu(x), backend="xdna", options={"device": "npu"})
    with torch.no_grad(), pytest.raises(DeviceError) as error:
        fn(torch.randn(3))
    assert len(str(error.value)) > 30


def test_auto_says_once_why_it_is_the_emulator():
    from torch_xdna import devices

    devices._warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert devices.select("auto").name == "emulator"
        assert devices.select("auto") is devices.select("emulator")
    assert [str(w.message).startswith("xdna: device 'auto' uses the emulator, because") for w in said] == [
        True
    ]


def test_unknown_device():
    from torch_xdna.devices import select

    with pytest.raises(DeviceError, match="there is no device 'tpu'"):
        select("tpu")


def test_fallback_error_names_the_op():
    fn = compiled(lambda x: torch.sin(F.gelu(x)), fallback="error")
    for _ in range(2):  # the second call meets the compiled graph
        with torch.no_grad(), pytest.raises(FallbackError) as error:
            fn(torch.randn(3, 8))
        text = str(error.value)
        assert "aten.sin" in text and "[3, 8]" in text and "the device has no sin" in text


def test_fallback_error_allows_what_runs_on_the_device():
    model, x = mlp(), torch.randn(2, 5, 64)
    with torch.no_grad():
        assert_close(compiled(model, fallback="error")(x), model(x))


def test_fallback_error_refuses_training():
    with pytest.raises(FallbackError, match="needs gradients"):
        compiled(mlp(), fallback="error")(torch.randn(2, 5, 64))


def test_one_warning_per_reason():
    def fn(x):
        return torch.sin(torch.sin(F.gelu(x))).cos()

    with torch.no_grad(), pytest.warns(UserWarning, match="xdna: ") as said:
        compiled(fn)(torch.randn(3, 8))
        compiled(lambda x: torch.sin(x))(torch.randn(3, 8))
    texts = [str(w.message) for w in said if str(w.message).startswith("xdna: aten")]
    assert [t.rpartition("because ")[2] for t in texts] == ["the device has no sin", "the device has no cos"]


def test_reset_forgets_everything():
    import gc
    import weakref

    model, x = mlp(), torch.randn(2, 5, 64)
    with torch.no_grad():
        compiled(model)(x)
    report = weakref.ref(only_report())
    executable = weakref.ref(report().graphs[0].executables[0])
    torch._dynamo.reset()
    gc.collect()
    assert torch_xdna.reports() == [] and report() is None and executable() is None
