"""Weights are packed once; a change is noticed before the next result; nothing keeps a dropped model alive."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch
from comparing import assert_close, compiled
from torch import nn

import torch_xdna
from torch_xdna.devices.emulator import EmulatorExecutable
from torch_xdna.execution.weight_store import AT_ONCE, ATTEMPTS, WeightStore


class Model(nn.Sequential):
    def forward(self, x):  # a frame of ours: Dynamo skips torch's own with module.compile
        return super().forward(x)


def model() -> nn.Module:
    return Model(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32), nn.LayerNorm(32)).eval()


@pytest.fixture
def packs(monkeypatch):
    """Counts how often weights are packed."""
    calls = []
    pack = EmulatorExecutable.pack

    def counting(self, params):
        calls.append(sorted(params))
        return pack(self, params)

    monkeypatch.setattr(EmulatorExecutable, "pack", counting)
    return calls


def scale_in_place(m):
    with torch.no_grad():
        m[0].weight.mul_(-2)


def scale_data(m):
    m[0].weight.data.mul_(-2)


def one_bias_through_data(m):
    m[3].bias.data.add_(1)


def through_numpy(m):
    m[0].weight.detach().numpy()[:] *= -2


def one_element_through_data(m):
    m[2].weight.data[5, 7] += 5


def one_element_through_numpy(m):
    m[3].weight.detach().numpy()[9] = 4


def replace_parameter(m):
    m[0].weight = nn.Parameter(torch.randn(64, 32))


def replace_data(m):
    m[0].weight.data = torch.randn(64, 32)


def replace_module(m):
    m[0] = nn.Linear(32, 64)


def load(m):
    m.load_state_dict(model().state_dict())


def load_assign(m):
    m.load_state_dict(model().state_dict(), assign=True)


def optimizer_step(m):
    optimizer = torch.optim.SGD(m.parameters(), lr=1.0)
    with torch.enable_grad():
        m(torch.randn(5, 32)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def one_element(m):
    with torch.no_grad():
        m[3].bias[7] += 3


def copy_into(m):
    with torch.no_grad():
        m[2].weight.copy_(torch.randn(32, 64))


CHANGES = [
    scale_in_place, scale_data, one_bias_through_data, through_numpy, one_element_through_data,
    one_element_through_numpy, replace_parameter, replace_data, replace_module,
    load, load_assign, optimizer_step, one_element, copy_into,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_change_is_noticed_before_the_next_result(change, packs):
    m, x = model(), torch.randn(4, 32)
    plain = model()  # holds the changed weights, runs eager
    fn = compiled(m)
    with torch.no_grad():
        before = fn(x)
        fn(x)
        assert len(packs) == 1
        change(m)
        plain.load_state_dict(m.state_dict())
        after = fn(x)
        assert_close(after, plain(x))
        assert (after - before).abs().max() > 0.1
        fn(x)
    assert len(packs) == 2


@pytest.mark.parametrize("where", [(0, 0), (511, 1023), (200, 513)])
@pytest.mark.parametrize("how", ["data", "numpy", "inference"])
def test_one_element_of_large_weights(how, where, packs):
    """They are hashed beside the run: a call that was made with old ones is made again."""
    with torch.inference_mode(how == "inference"), torch.no_grad():
        m, x = nn.Linear(1024, 512, bias=False), torch.ones(4, 1024)
        assert m.weight.numel() * 4 > AT_ONCE
        fn = compiled(m)
        before = fn(x)
        if how == "data":
            m.weight.data[where] += 50
        elif how == "numpy":
            m.weight.detach().numpy()[where] += 50
        else:
            m.weight[where] += 50
        assert_close(fn(x), m(x))
        assert (fn(x) - before).abs().max() > 40
    assert len(packs) == 2


def test_weights_with_others_elements_between_them():
    """What lies between may change as it likes."""
    count, base = [], torch.randn(600, 1024)
    store = WeightStore(lambda params: count.append(1))
    params = [base[:, ::2], base.T[1::2]]
    for _ in range(2):
        store.get(params)
    base.numpy()[:, 1::2][0, 0] += 1  # of the second one only
    store.get(params[:1])
    store.get(params[:1])
    assert len(count) == 2
    store.get(params)
    assert len(count) == 3
    base.numpy()[5, 6] += 1
    store.get(params[:1])
    assert len(count) == 4


def test_a_call_that_fails_says_so_and_weights_that_never_rest_end_in_a_result():
    def restless(params):
        params[0].numpy()[3] += 1
        return object()

    store, params, calls = WeightStore(restless), [torch.ones(1 << 20)], []
    assert store.use(params, lambda packed: calls.append(packed) or packed) is calls[-1]
    assert len(set(calls)) == ATTEMPTS
    with pytest.raises(ZeroDivisionError):
        store.use(params, lambda packed: 1 / 0)


def test_a_parameter_made_under_inference_mode(packs):
    """It has no version counter at all."""
    with torch.inference_mode():
        m, x = model(), torch.randn(4, 32)
        fn = compiled(m)
        assert_close(fn(x), m(x))
        m[0].weight.mul_(-2)
        assert_close(fn(x), m(x))
        fn(x)
    assert len(packs) == 2


def one_weight(m):
    m[0].weight[5, 7] += 5


def one_bias(m):
    m[0].bias[3] += 5


def one_gain(m):
    m[3].weight.view(-1)[11] *= 9


def one_through_numpy(m):
    m[2].weight.detach().numpy()[3, 3] = 5


@pytest.mark.parametrize(
    "change", [one_weight, one_bias, one_gain, one_through_numpy], ids=lambda f: f.__name__
)
def test_one_element_written_under_inference_mode(change, packs):
    """No counter sees it, and a sample of the elements would miss it."""
    with torch.inference_mode():
        m, x = model(), torch.randn(4, 32)
        fn = compiled(m)
        before = fn(x)
        change(m)
        assert_close(fn(x), m(x))
        assert (fn(x) - before).abs().max() > 0.1
    assert len(packs) == 2


def test_one_element_of_an_added_tensor_without_counter():
    def fn(x, y, embedding):
        return nn.functional.gelu(x @ y) + embedding

    with torch.inference_mode():
        x, y, embedding = torch.randn(2, 40, 32), torch.randn(32, 64), torch.randn(40, 64)
        run = compiled(fn)
        run(x, y, embedding)
        embedding[17, 5] = 100
        y[3, 9] = 100
        assert_close(run(x, y, embedding), fn(x, y, embedding))


def test_parameters_can_be_swapped(packs):
    """torch.utils.swap_tensors, as load_state_dict uses it, takes no tensor with a weak reference."""
    m, x = model(), torch.randn(4, 32)
    other, fn = model(), compiled(m)
    with torch.no_grad():
        fn(x)
        assert not any(weakref.getweakrefs(p) for p in m.parameters())
        for mine, others in zip(m.parameters(), other.parameters()):
            torch.utils.swap_tensors(mine, others)
        assert_close(fn(x), m(x))
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            m.load_state_dict(model().state_dict())
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
        assert_close(fn(x), m(x))
    assert len(packs) == 3


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_complex_weight_cast_to_real(dtype):
    """The imaginary part is dropped, as eager does."""

    def fn(x, w):
        return nn.functional.linear(x, w.to(torch.float32))

    x, w = torch.randn(4, 32), torch.randn(8, 32, dtype=dtype)
    with torch.no_grad():
        run = compiled(fn)
        assert_close(run(x, w), fn(x, w))
        w.mul_(-2)
        assert_close(run(x, w), fn(x, w))


def test_tensors_with_the_negative_bit():
    """The imaginary part of a conjugate is a view whose memory holds the opposite."""
    x, w = (torch.randn(*shape, dtype=torch.complex64).conj().imag for shape in ((4, 32), (8, 32)))
    assert x.is_neg() and w.is_neg()
    with torch.no_grad():
        run = compiled(nn.functional.linear)
        assert_close(run(x, w), nn.functional.linear(x, w))
        plain = w._neg_view()
        assert_close(run(x, plain), nn.functional.linear(x, plain))


def test_views_of_one_tensor_leave_nothing_behind():
    weights, x = torch.randn(50, 32, 32), torch.randn(4, 32)
    with torch.no_grad():
        fn = compiled(nn.functional.linear)
        for w in weights:
            assert_close(fn(x, w), nn.functional.linear(x, w))
    del w
    gc.collect()
    assert sum(map(len, stores())) == 0


def test_two_models_of_one_architecture(packs):
    a, b, x = model(), model(), torch.randn(4, 32)
    with torch.no_grad():
        fa, fb = compiled(a), compiled(b)
        for _ in range(3):
            assert_close(fa(x), a(x))
            assert_close(fb(x), b(x))
    assert len(packs) == 2


def test_weights_shared_by_two_layers():
    a = nn.Linear(32, 32)
    m, x = nn.Sequential(a, nn.GELU(), a).eval(), torch.randn(4, 32)
    with torch.no_grad():
        assert_close(compiled(m)(x), m(x))


def test_weights_given_as_arguments(packs):
    fn, x = compiled(nn.functional.linear), torch.randn(4, 32)
    with torch.no_grad():
        for _ in range(3):
            w = torch.randn(8, 32)
            assert_close(fn(x, w), nn.functional.linear(x, w))
    assert len(packs) == 3


@pytest.fixture(autouse=True)
def no_garbage():
    """What earlier tests left in cycles is not counted."""
    gc.collect()


def stores() -> list[WeightStore]:
    from torch_xdna.execution.region_call import _PREPARED

    return [prepared.weights for prepared in _PREPARED.values()]


@pytest.mark.parametrize("how", ["torch.compile", "module.compile"])
def test_a_dropped_model_frees_its_weights(how):
    m, x = model(), torch.randn(4, 32)
    if how == "torch.compile":
        fn = compiled(m)
    else:
        m.compile(backend="xdna", options={"device": "emulator"})
        fn = m
    with torch.no_grad():
        fn(x)
    packed = [entry.packed for store in stores() for entry in store._entries.values()]
    assert len(packed) == 1
    del packed
    parameter, storage = weakref.ref(m[0].weight), m[0].weight.untyped_storage()
    held = weakref.ref(storage)
    del m, fn, storage
    gc.collect()
    assert parameter() is None and held() is None
    assert sum(map(len, stores())) == 0


def test_reset_frees_weights_while_the_model_lives():
    m, x = model(), torch.randn(4, 32)
    fn = compiled(m)
    with torch.no_grad():
        fn(x)
        used = stores()
        assert sum(map(len, used)) == 1
        torch._dynamo.reset()
        assert sum(map(len, used)) == 0 and stores() == [] and torch_xdna.reports() == []
        assert_close(fn(x), m(x))


def test_reset_frees_weights_behind_a_graph_break():
    """Dynamo keeps the code that goes on after a break in the function's globals, whatever is reset."""

    def fn(x, w):
        x = nn.functional.gelu(nn.functional.linear(x, w))
        torch._dynamo.graph_break()
        return nn.functional.linear(x, w)

    x, w = torch.randn(4, 32), torch.randn(32, 32)
    with torch.no_grad():
        compiled(fn)(x, w)
        used = stores()
        assert sum(map(len, used)) == 2
        torch._dynamo.reset()
        assert sum(map(len, used)) == 0


def test_threads(packs):
    """Four threads, different inputs and batch sizes, one compiled model: packed once, each gets its own result."""
    m = model()
    fn = compiled(m)
    inputs = [torch.randn(2 + i % 2, 5, 32) for i in range(4)]
    with torch.no_grad():
        expected = [m(x) for x in inputs]
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def work(i):
        try:
            start.wait()
            with torch.no_grad():
                for _ in range(10):
                    assert_close(fn(inputs[i]), expected[i])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[0]
    assert len(packs) == 1


def test_a_store_under_threads_packs_once():
    packed, gate = [], threading.Barrier(8)

    def pack(params):
        packed.append(1)
        return [p.clone() for p in params]

    store, params = WeightStore(pack), [torch.randn(8, 8), torch.randn(3)]

    def work():
        gate.wait()
        for _ in range(50):
            store.get(params)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(packed) == 1 and len(store) == 1


def test_a_store_sees_nan_as_unchanged():
    count = []
    store = WeightStore(lambda params: count.append(1))
    params = [
        torch.full((4, 4), float("nan")),
        torch.randn(5).bfloat16(),
        torch.randn(0),
        torch.randn(6)[::2],
    ]
    for _ in range(3):
        store.get(params)
    assert len(count) == 1
