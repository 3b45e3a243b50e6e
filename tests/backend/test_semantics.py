"""Views, aliases, in-place ops, mutated inputs: what eager does, compiled does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_close, assert_like_eager, compiled, only_report


def rand(*shape):
    return torch.randn(*shape)


def run_both(fn, *args):
    """(compiled's result, eager's, compiled's arguments afterwards, eager's) from equal arguments."""
    ours, theirs = ([a.clone() for a in args] for _ in range(2))
    with torch.no_grad():
        expected = fn(*theirs)
        actual = compiled(fn)(*ours)
    return actual, expected, ours, theirs


def test_in_place_ops_on_intermediates():
    def fn(x, w):
        y = F.linear(x, w)
        y.add_(x)
        z = y.view(-1)
        z[3] = 7.0
        return F.gelu(y), z

    actual, expected, *_ = run_both(fn, rand(4, 16), rand(16, 16))
    assert_close(actual, expected)


def test_mutated_input():
    def fn(x, w):
        x.copy_(F.gelu(x))
        return F.linear(x, w)

    actual, expected, ours, theirs = run_both(fn, rand(4, 16), rand(16, 16))
    assert_close(actual, expected)
    assert_close(ours, theirs)
    assert only_report().eager_ops == 0


def test_mutated_weight():
    """The weight changes inside the graph: each call must compute with what it is then."""

    def fn(x, w):
        w.mul_(2)
        return F.linear(x, w)

    x, ours = rand(4, 16), rand(16, 16)
    theirs, call = ours.clone(), compiled(fn)
    with torch.no_grad():
        for _ in range(3):
            assert_close(call(x, ours), fn(x, theirs))
    assert torch.equal(ours, theirs)


def test_mutated_buffer_of_a_module():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(16, 16)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.linear(x)

    model, x = Counting(), rand(4, 16)
    call = compiled(model)
    with torch.no_grad():
        for n in (1, 2, 3):
            call(x)
            assert model.calls == n


def test_mutation_through_a_view_of_an_input():
    def fn(x, w):
        x[1:3] += 1
        y = F.linear(x, w)
        x.t()[0] = 5.0
        return y

    actual, expected, ours, theirs = run_both(fn, rand(4, 16), rand(16, 16))
    assert_close(actual, expected)
    assert_close(ours, theirs)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, w: (lambda y: (y, y.view(-1), y.t()))(F.linear(x, w)),
        lambda x, w: (lambda y: (y.view(2, 2, 16), y[1]))(F.linear(x, w)),
        lambda x, w: (x.view(-1), F.linear(x, w)),
        lambda x, w: (lambda y: (y, y))(F.linear(x, w)),
    ],
    ids=["views of a result", "a view and a slice", "view of an input", "one result twice"],
)
def test_aliases_among_results(fn):
    actual, expected, ours, theirs = run_both(fn, rand(4, 16), rand(16, 16))
    assert_close(actual, expected)

    def sharing(tensors):
        storages = [t.untyped_storage().data_ptr() for t in tensors]
        return [[a == b for b in storages] for a in storages]

    assert sharing([*actual, *ours]) == sharing([*expected, *theirs])


def test_copies_do_not_share_memory():
    def fn(x, w):
        y = F.linear(x, w)
        return y, y.clone(), y.clone().t()

    (a, b, c), expected, *_ = run_both(fn, rand(4, 16), rand(16, 16))
    assert_close((a, b, c), expected)
    assert len({t.untyped_storage().data_ptr() for t in (a, b, c)}) == 3


def test_results_of_two_calls_do_not_share_memory():
    x, y, w = rand(4, 16), rand(4, 16), rand(16, 16)
    call = compiled(F.linear)
    with torch.no_grad():
        first = call(x, w)
        kept = first.clone()
        call(y, w)
    assert torch.equal(first, kept)


def test_inputs_that_alias_each_other():
    def fn(a, b, w):
        a.add_(1)
        return F.linear(b, w)

    w, base = rand(16, 16), rand(6, 16)
    ours, theirs = base.clone(), base.clone()
    with torch.no_grad():
        expected = fn(theirs[:4], theirs[2:], w)
        assert_close(compiled(fn)(ours[:4], ours[2:], w), expected)
    assert torch.equal(ours, theirs)


STRIDES = {
    "transposed result": lambda x, w: F.linear(x, w).transpose(0, 1),
    "permuted": lambda x, w: F.linear(x, w).view(3, 4, 2, 8).permute(2, 0, 3, 1),
    "contiguous copy": lambda x, w: F.linear(x, w).transpose(1, 2).contiguous(),
    "gelu of transposed": lambda x, w: F.gelu(F.linear(x, w).transpose(1, 2)),
    "norm of transposed": lambda x, w: F.layer_norm(F.linear(x, w).transpose(1, 2), (4,)),
    "cast": lambda x, w: F.linear(x, w).to(torch.bfloat16),
    "linear of transposed": lambda x, w: F.linear(F.linear(x, w).transpose(1, 2), w[:, :4]),
    "softmax over split columns": lambda x, w: torch.softmax(F.linear(x, w).view(3, 4, 2, 8), -1),
    "unsqueezed": lambda x, w: F.linear(x, w)[None, :, None],
    "expanded": lambda x, w: F.gelu(F.linear(x, w)[:1].expand(5, 4, 16)),
    "sliced": lambda x, w: F.gelu(F.linear(x, w)[..., 4:12]),
    "chunks": lambda x, w: [F.gelu(c) for c in F.linear(x, w).chunk(2, -1)],
    "unbound": lambda x, w: F.gelu(F.linear(x, w).unbind(0)[1]),
    "flipped": lambda x, w: F.gelu(F.linear(x, w).flip(1)),
}


@pytest.mark.parametrize("name", STRIDES)
def test_shapes_and_strides(name):
    assert_like_eager(STRIDES[name], rand(3, 4, 16), rand(16, 16) / 4)


def test_eager_op_between_regions():
    def fn(x, w):
        y = F.linear(x, w)
        return F.linear(torch.sin(y), w) + y

    report = assert_like_eager(fn, rand(4, 16), rand(16, 16) / 4, regions=2, eager_ops=1)
    assert [len(r.outputs) for r in report.region_list] == [1, 1]


def test_independent_parts_are_one_region():
    def fn(x, y, w):
        return F.gelu(F.linear(x, w)), F.linear(y, w), torch.sin(x)

    assert_like_eager(fn, rand(4, 16), rand(4, 16), rand(16, 16) / 4, regions=1, eager_ops=1)


def test_eager_op_beside_a_region_does_not_cut_it():
    def fn(x, w):
        y = F.linear(x, w)
        return F.linear(y, w), torch.sin(y).exp()

    assert_like_eager(fn, rand(4, 16), rand(16, 16) / 4, regions=1, eager_ops=2)


def test_different_batches_are_different_regions():
    def fn(x, y, w):
        return F.linear(x, w), F.linear(y, w)

    assert_like_eager(fn, rand(2, 4, 16), rand(3, 4, 16), rand(16, 16), regions=2, eager_ops=0)


def test_result_that_is_an_input_and_a_constant():
    def fn(x, w):
        return x, F.linear(x, w), 3, None

    x, w = rand(4, 16), rand(16, 16)
    with torch.no_grad():
        a, b, c, d = compiled(fn)(x, w)
    assert a is x and c == 3 and d is None
    assert_close(b, fn(x, w)[1])


def test_constants_in_the_graph():
    table = torch.arange(16.0)

    def fn(x, w):
        return F.linear(x + table, w) + torch.tensor([2.0])

    assert_like_eager(fn, rand(4, 16), rand(16, 16) / 4)


def test_nothing_for_the_device():
    assert_like_eager(lambda x: torch.sin(x).cos(), rand(4, 16), regions=0, eager_ops=2)
