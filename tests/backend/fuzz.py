"""A graph fuzzer: random programs of what the matcher knows and of what looks like it, held against float64.

    python tests/backend/fuzz.py --cases 3000 --seed 1        # about a quarter of an hour on two cores
    python tests/backend/fuzz.py --seed 1 --case 271          # one of them again, with its source

A program is right if eager's shapes, dtypes and strides come out, the inputs are what eager leaves of them, every
number that float64 has finite is finite, and the distance to float64 is no more than a small multiple of that of the
same program in bf16. A third of the programs has one size for every dimension, where sizes can't tell dimensions
apart. Programs are source text, so that a case that fails is one to read.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections.abc import Sequence

import torch
from fuzz_programs import Program, programs
from torch import Tensor

# Distances of outputs relative to float64's size, in the Euclidean norm and in the largest element.
TIMES_BF16, NORM_SLACK, LARGEST_SLACK = 4.0, 0.01, 0.03


def fault(program: Program) -> str | None:
    """What is wrong with a program's results on the emulator, or None."""
    with torch.no_grad():
        run, arguments = program.build(program.dtype)
        eager, for_eager = program.build(program.dtype)
        expected = eager(*for_eager)
        exact, rounded = (
            [y.double() for y in fn(*args)]
            for fn, args in map(program.build, (torch.float64, torch.bfloat16))
        )
        torch._dynamo.reset()
        compiled = torch.compile(run, backend="xdna", fullgraph=True, options={"device": "emulator"})
        found = compiled(*arguments)
        again = compiled(*program.build(program.dtype)[1])
    for a, b in zip(arguments, for_eager, strict=True):
        if not torch.equal(a, b) and _distance(a, b.double())[0] > NORM_SLACK:
            return "its arguments are not what eager leaves of them"
    for name, y, second, plain, best, bf16 in zip(
        program.outputs, found, again, expected, exact, rounded, strict=True
    ):
        if _form(y) != _form(plain):
            return f"{name} has the form {_form(y)}, eager's {_form(plain)}"
        if not torch.equal(y, second) and not (y.isnan() & second.isnan()).any():
            return f"{name} differs from call to call"
        finite = torch.isfinite(plain) & torch.isfinite(best)
        if not torch.isfinite(y[finite]).all():
            return f"{name} has {int((~torch.isfinite(y[finite])).sum())} numbers that are not finite, eager's are"
        if not finite.all():
            continue
        allowed = [
            TIMES_BF16 * d + slack for d, slack in zip(_distance(bf16, best), (NORM_SLACK, LARGEST_SLACK))
        ]
        distance = _distance(y, best)
        if any(d > a for d, a in zip(distance, allowed)):
            return f"{name} is off by {_shown(distance)}, allowed is {_shown(allowed)}"
    return None


def _distance(found: Tensor, exact: Tensor) -> tuple[float, float]:
    off = found.double() - exact
    return float(off.norm() / exact.norm().clamp_min(1e-12)), float(
        off.abs().max() / exact.abs().max().clamp_min(1e-12)
    )


def _shown(distance: Sequence[float]) -> str:
    return f"{distance[0]:.3g} ({distance[1]:.3g} in one number)"


def _form(x: Tensor) -> tuple:
    """A stride in a direction of one element says nothing."""
    return tuple(x.shape), x.dtype, [step for step, size in zip(x.stride(), x.shape) if size > 1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="this case only, with its source")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    cases = (
        range(args.first, args.first + args.cases) if args.case is None else range(args.case, args.case + 1)
    )
    began, ran, faults = time.monotonic(), 0, 0
    for case, program in programs(args.seed, cases):
        try:
            what = fault(program)
        except Exception as error:
            what = "".join(traceback.format_exception_only(error))
        ran += 1
        if what is not None or args.case is not None:
            print(f"case {case}, {program.dtype}: {(what or 'right').strip()}\n{program.source}", flush=True)
            print({name: tuple(t.shape) for name, t in program.tensors.items()}, "\n", flush=True)
        faults += what is not None
        if ran % 250 == 0:
            print(f"{ran} programs, {faults} wrong, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{ran} programs, {faults} wrong, {time.monotonic() - began:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
