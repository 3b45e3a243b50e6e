"""Random regions: whatever ops are strung together, the program is right and breaks no rule."""

import numpy as np
from expected import Builder, cosine, random_inputs, random_params
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import run

from torch_xdna import lowering
from torch_xdna.lowering import ops
from torch_xdna.lowering.evaluate import evaluate


@st.composite
def regions(draw):
    """Up to six ops over values of two lengths; every op may read any earlier value that fits it."""
    b = Builder()
    rows = draw(st.lists(st.integers(1, 300), min_size=1, max_size=2))
    cols = 64 * draw(st.integers(1, 6))
    for index, count in enumerate(rows):
        b.input(count, cols, f"x{index}")
    for index in range(draw(st.integers(1, 6))):
        values = list(range(len(b.values)))
        x = draw(st.sampled_from(values))
        same = [
            v for v in values if (b.values[v].rows, b.values[v].cols) == (b.values[x].rows, b.values[x].cols)
        ]
        kind = draw(
            st.sampled_from(["linear", "linear", "attention", "attention", "norm", "gelu", "add", "softmax"])
        )
        name = f"{kind}{index}"
        if kind == "linear":
            n = draw(st.sampled_from([cols, cols, 70, 300]))
            residual = draw(st.sampled_from(same)) if n == b.values[x].cols and draw(st.booleans()) else None
            b.linear(x, n, name, bias=draw(st.booleans()), gelu=draw(st.booleans()), residual=residual)
        elif kind == "attention":
            queries = [v for v in values if b.values[v].cols == cols]
            q, k = draw(st.sampled_from(queries)), draw(st.sampled_from(queries))
            v = draw(st.sampled_from([v for v in queries if b.values[v].rows == b.values[k].rows]))
            b.op(ops.Attention, name, q, k, v, cols // 64)
        elif kind == "norm":
            b.norm(x, name)
        elif kind == "add":
            y = draw(st.sampled_from(same))
            b.op(
                ops.Add,
                name,
                x,
                b.param(name, b.values[x].rows, b.values[x].cols) if draw(st.booleans()) else y,
            )
        else:
            b.op({"gelu": ops.Gelu, "softmax": ops.Softmax}[kind], name, x)
    outputs = draw(st.lists(st.sampled_from(range(len(b.values))), min_size=1, max_size=3, unique=True))
    return b.region(*outputs)


@settings(max_examples=15, deadline=None)
@given(regions(), st.sampled_from([1, 2, 4]))
def test_any_region_runs_right(region, columns):
    params, inputs = random_params(region), random_inputs(region)
    program = lowering.lower(region, columns=columns)
    for ours, theirs in zip(run(program, params, inputs), evaluate(region, params, inputs)):
        assert np.isfinite(ours).all()
        assert cosine(ours, theirs) > 0.999
