"""Each op of a region on the emulator: against float64, against the rounding that lowering/ops.py states."""

from __future__ import annotations

import threading

import pytest
import torch
from encoders import BASE, Builder, encoder, one_layer, reference, shortened
from torch import Tensor

from torch_xdna.devices import select
from torch_xdna.devices.emulator import EmulatorDevice, native_bf16, workers
from torch_xdna.devices.emulator.chunk_plan import chunks, make_plan
from torch_xdna.errors import SettingsError
from torch_xdna.lowering import ops as ir


@pytest.fixture(autouse=True, params=["fp32", "bf16"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to multiply; oneDNN also does the second where the CPU has no instructions for it."""
    monkeypatch.setenv(native_bf16.SWITCH, request.param)
    return request.param


def run(b: Builder, x: list[int], out: list[int], inputs: list[Tensor]) -> list[Tensor]:
    executable = EmulatorDevice().prepare(b.region(x, out))
    return executable.run(inputs, executable.pack(b.params))


def as_stored(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).double()


def distance(actual: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


# Rounding to nearest bf16 changes a number by at most 2^-9 of it; the rest is for fp32's sums.
ONE_ROUNDING = 2.0**-9 * 1.02


@pytest.mark.parametrize("rows", [1, 7, 130, 500])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_linear(rows: int, gelu: bool, residual: bool) -> None:
    b = Builder()
    x, r = b.value(rows, 96), b.value(rows, 160)
    out = b.linear(x, 160, "fc", gelu=gelu, residual=r if residual else None)
    inputs = [torch.randn(2, rows, 96), torch.randn(2, rows, 160)]
    (actual,) = run(b, [x, r], [out], inputs)

    expected = as_stored(inputs[0]) @ as_stored(b.params["fc.weight"]).T + b.params["fc.bias"].double()
    expected = torch.nn.functional.gelu(expected) if gelu else expected
    expected = expected + as_stored(inputs[1]) if residual else expected
    assert distance(actual, expected) < ONE_ROUNDING
    # Apart from fp32's sums, nothing but the last rounding may differ.
    assert (actual == expected.to(torch.bfloat16)).float().mean() > 0.99


def test_products_of_one_input_are_merged_and_their_order_does_not_matter() -> None:
    b = Builder()
    x = b.value(40, 64)
    outs = [b.linear(x, cols, name, bias) for cols, name, bias in ((64, "a", 1), (128, "b", 0), (32, "c", 1))]
    inputs = [torch.randn(1, 40, 64)]
    region = b.region([x], outs[::-1])
    products = [p.matrix for s in make_plan(region).stages for p in s.phases if p.matrix is not None]
    assert len(products) == 1
    for actual, expected in zip(
        run(b, [x], outs[::-1], inputs), reference(region, b.params, inputs, torch.float64), strict=True
    ):
        assert actual.shape == expected.shape
        assert distance(actual, expected) < 3 * ONE_ROUNDING


def test_transposed_weight() -> None:
    b = Builder()
    x, out = b.value(9, 64), b.value(9, 32)
    b.add(ir.Linear(out, x, b.param("w", 64, 32), transposed=True))
    inputs = [torch.randn(3, 9, 64)]
    (actual,) = run(b, [x], [out], inputs)
    assert distance(actual, as_stored(inputs[0]) @ as_stored(b.params["w"])) < ONE_ROUNDING


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 33, 1001])
def test_conv1d(frames: int, stride: int) -> None:
    b = Builder()
    rows = (frames - 1) // stride + 1
    x, out = b.value(frames, 20), b.value(rows, 64)
    weight, bias, positions = b.param("w", 64, 20, 3), b.param("b", 64), b.param("p", rows, 64)
    b.add(ir.Conv1d(out, x, weight, bias, stride, activation=ir.Activation.GELU, residual=positions))
    inputs = [torch.randn(2, 20, frames).mT]  # as a spectrogram comes: strided
    (actual,) = run(b, [x], [out], inputs)
    rounded = {"w": as_stored(b.params["w"]), "b": b.params["b"].double(), "p": as_stored(b.params["p"])}
    (expected,) = reference(b.region([x], [out]), rounded, [as_stored(inputs[0])], torch.float64)
    assert distance(actual, expected) < ONE_ROUNDING


@pytest.mark.parametrize("kind", ["layer_norm", "plain_norm", "softmax", "gelu", "add", "position"])
@pytest.mark.parametrize("cols", [1, 64, 1500])
def test_row_ops(kind: str, cols: int) -> None:
    b = Builder()
    x, y, out = b.value(50, cols), b.value(50, cols), b.value(50, cols)
    op = {
        "layer_norm": lambda: ir.LayerNorm(out, x, b.param("g", cols), b.param("b", cols)),
        "plain_norm": lambda: ir.LayerNorm(out, x, eps=1e-3),
        "softmax": lambda: ir.Softmax(out, x),
        "gelu": lambda: ir.Gelu(out, x),
        "add": lambda: ir.Add(out, x, y),
        "position": lambda: ir.Add(out, x, b.param("p", 50, cols)),
    }[kind]()
    b.add(op)
    inputs = [3 * torch.randn(2, 50, cols) + 1, torch.randn(2, 50, cols)]
    (actual,) = run(b, [x, y], [out], inputs)
    params = {name: as_stored(p) if name == "p" else p for name, p in b.params.items()}
    (expected,) = reference(b.region([x, y], [out]), params, [as_stored(i) for i in inputs], torch.float64)
    assert (actual.double() - expected).abs().max() <= 2.0**-8 * expected.abs().max() + 1e-4
    assert torch.isfinite(actual).all()


def exact_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The docstring of ir.Attention in float64, for one head of bf16 values."""
    t = scale * 1.4426950408889634 * (q @ k.mT)
    p = as_stored(torch.exp2(t - t.amax(-1, keepdim=True).ceil()))
    return p @ v / p.sum(-1, keepdim=True)


@pytest.mark.parametrize("rows, keys", [(1, 1), (70, 33), (200, 1500), (900, 300)])
@pytest.mark.parametrize("size", [1.0, 40.0])
def test_attention_rounds_p_as_the_kernel_does(products: str, rows: int, keys: int, size: float) -> None:
    """size 40: scores beyond what exp can take, so that the maximum must be subtracted. In the CPU's own bf16, p is
    rounded relative to the maximum itself: not the kernel's bits, but no further from float64."""
    b = Builder()
    q, k, v, out = (b.value(r, 128) for r in (rows, keys, keys, rows))
    b.add(ir.Attention(out, q, k, v, heads=2, scale=0.1))
    inputs = [size * torch.randn(1, rows, 128), torch.randn(1, keys, 128), torch.randn(1, keys, 128)]
    (actual,) = run(b, [q, k, v], [out], inputs)
    for head in (slice(0, 64), slice(64, 128)):
        operands = [as_stored(x[..., head]) for x in inputs]
        expected = exact_attention(*operands, 0.1)
        if products == "bf16":
            exact = torch.softmax(0.1 * operands[0] @ operands[1].mT, -1) @ operands[2]
            assert distance(actual[..., head], exact) < 1.5 * ONE_ROUNDING  # p's rounding and the result's
            assert distance(actual[..., head], expected) < 2 * ONE_ROUNDING
            continue
        assert distance(actual[..., head], expected) < ONE_ROUNDING
        assert (actual[..., head] == expected.to(torch.bfloat16)).float().mean() > 0.95


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("where", [0, 100, 199])
def test_what_is_not_finite_stays_where_eager_has_it(bad: float, where: int) -> None:
    """A whole layer with one bad element: the same rows as in eager are not finite, no others."""
    region, params = one_layer(shortened(BASE, 200))
    x = torch.randn(1, 200, BASE.width)
    x[0, where, 5] = bad
    executable = EmulatorDevice().prepare(region)
    (actual,) = executable.run([x], executable.pack(params))
    (expected,) = reference(region, params, [x.to(torch.bfloat16).float()], torch.float32)
    assert torch.equal(torch.isfinite(actual), torch.isfinite(expected))


def test_a_clip_does_not_depend_on_its_batch_and_runs_repeat() -> None:
    region, params = encoder(shortened(BASE, 300))
    executable = EmulatorDevice().prepare(region)
    packed = executable.pack(params)
    mel = torch.randn(3, 600, 80)
    (together,) = executable.run([mel], packed)
    for clip in range(3):
        (alone,) = executable.run([mel[clip : clip + 1]], packed)
        assert torch.equal(alone[0], together[clip])
    assert torch.equal(executable.run([mel], packed)[0], together)


def test_threads_share_an_executable() -> None:
    region, params = encoder(shortened(BASE, 250))
    executable = EmulatorDevice().prepare(region)
    packed = executable.pack(params)
    mels = [torch.randn(1, 500, 80) for _ in range(4)]
    expected = [executable.run([mel], packed)[0] for mel in mels]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(3):
            if not torch.equal(executable.run([mels[number]], packed)[0], expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("threads", [1, 3])
def test_number_of_threads_is_torchs_and_stays_as_it_was(products: str, threads: int) -> None:
    region, params = encoder(shortened(BASE, 400, layers=1))
    executable = EmulatorDevice().prepare(region)
    packed = executable.pack(params)
    mel = torch.randn(1, 800, 80)
    (expected,) = executable.run([mel], packed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (actual,) = executable.run([mel], packed)
        assert torch.get_num_threads() == threads
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert seen == [threads]
    finally:
        torch.set_num_threads(before)
    # Products of other sizes may sum in another order; torch's flash kernel takes its maxima over other blocks.
    assert distance(actual, expected) < ONE_ROUNDING * (2 if products == "bf16" else 1)


def test_each_worker_uses_one_core() -> None:
    """With torch's number in each worker as well, oneDNN split products in other ways from run to run, which changed
    last bits and was slower."""
    seen: list[int] = []

    def work() -> None:
        torch.ones(1_000_000).add_(1)  # in parallel, if it may
        seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        for threads in (2, 1, 3):  # each makes a new pool
            torch.set_num_threads(threads)
            workers.run_all([work] * 6)
    finally:
        torch.set_num_threads(before)
    assert seen == [1] * 18


def test_modes_of_autograd_and_inputs_stay_untouched() -> None:
    region, params = one_layer(shortened(BASE, 150))
    executable = EmulatorDevice().prepare(region)
    packed = executable.pack({name: torch.nn.Parameter(p) for name, p in params.items()})
    x = torch.randn(1, 150, BASE.width)
    with torch.inference_mode():
        (first,) = executable.run([x.clone()], packed)
    kept = x.clone()
    (second,) = executable.run([x], packed)
    assert torch.equal(first, second)
    assert torch.equal(x, kept)
    assert not second.requires_grad
    assert second.data_ptr() != executable.run([x], packed)[0].data_ptr()


def test_packed_parameters_share_nothing_with_the_model() -> None:
    region, params = one_layer(shortened(BASE, 100))
    executable = EmulatorDevice().prepare(region)
    packed = executable.pack(params)
    x = torch.randn(1, 100, BASE.width)
    (before,) = executable.run([x], packed)
    for param in params.values():
        param.zero_()
    assert torch.equal(executable.run([x], packed)[0], before)
    assert packed.nbytes <= 1.06 * sum(4 * p.numel() for p in params.values())


def test_a_value_that_is_input_and_output_twice() -> None:
    b = Builder()
    x = b.value(5, 8)
    y = b.add(ir.Gelu(b.value(5, 8), x))
    inputs = [torch.randn(2, 5, 8)]
    same, first, second = run(b, [x], [x, y, y], inputs)
    assert torch.equal(same, inputs[0].to(torch.bfloat16))
    assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()


def test_plan_reads_like_the_encoder() -> None:
    """Threads meet once per layer, and q, k, v are one product."""
    region, _ = encoder(shortened(BASE, 300, layers=1))
    assert str(make_plan(region)).splitlines() == [
        "0 [600] - | %0 = load",
        "1 [600] - |",
        "1 [600] %1 = conv1d gelu |",
        "2 [300] - |",
        "2 [300] %2 = conv1d gelu | %3 = layernorm",
        "2 [300] %4+%5+%6 = product |",
        "3 [300] - |",
        "3 [300] %7 = attention |",
        "3 [300] %8 = product | %9 = layernorm",
        "3 [300] %10 = product gelu |",
        "3 [300] %11 = product | %12 = layernorm",
    ]


@pytest.mark.parametrize(
    "rows, workers", [(0, 2), (1, 2), (63, 2), (1500, 1), (1500, 2), (1500, 8), (3001, 3)]
)
def test_chunks_cover_all_rows_once(rows: int, workers: int) -> None:
    bounds = list(chunks(rows, workers))
    assert [r for first, last in bounds for r in range(first, last)] == list(range(rows))
    if rows >= 64 * workers:
        assert len(bounds) % workers == 0


def test_selected_by_name() -> None:
    assert select("emulator").name == "emulator"


def test_an_unknown_way_to_multiply_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native_bf16.SWITCH, "int4")
    with pytest.raises(SettingsError, match="is 'int4', which is not known; use auto, fp32 or bf16"):
        EmulatorDevice().prepare(one_layer(shortened(BASE, 64))[0])


def test_bf16_weights_are_kept_once_and_in_half_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    region, params = one_layer(shortened(BASE, 64))
    sizes = {}
    for way in ("fp32", "bf16"):
        monkeypatch.setenv(native_bf16.SWITCH, way)
        sizes[way] = EmulatorDevice().prepare(region).pack(params).nbytes
    assert sizes["bf16"] < 0.55 * sizes["fp32"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("gelu", [False, True])
def test_what_is_not_finite_stays_so(value: float, gelu: bool) -> None:
    b = Builder()
    x = b.value(20, 64)
    out = b.linear(x, 96, "fc", gelu=gelu)
    inputs = torch.randn(1, 20, 64)
    inputs[0, 3, 5] = value
    (actual,) = run(b, [x], [out], [inputs])
    expected = torch.nn.functional.linear(inputs, b.params["fc.weight"], b.params["fc.bias"])
    expected = torch.nn.functional.gelu(expected) if gelu else expected
    assert torch.equal(torch.isfinite(actual), torch.isfinite(expected))
    assert torch.equal(torch.isnan(actual), torch.isnan(expected))
