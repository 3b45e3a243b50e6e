"""How much of other encoders runs on the device: `python benchmarks/coverage.py [--only NAME ...] [--no-errors]`.

For each model of `coverage_models.MODELS`, with random weights: the share of its multiplications and additions on
the device, and how many regions and graphs it is cut into (its published sizes, explained on the meta device, so
that nothing is computed); the error of a small one on the emulator against float64, beside that of the same model
in eager bf16; and what takes most of what is left, with
the reason. Writes results/coverage.md.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from coverage_models import MODELS, Model
from torch import Tensor

import torch_xdna
from torch_xdna.report import EAGER

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
REASONS = 3  # of what is left, the heaviest


@dataclass(frozen=True)
class Covered:
    """Of one model. `share` of 1; `reasons`: (share of 1, op, why); `error` and `bf16`: relative root mean squares."""

    name: str
    share: float
    regions: int
    graphs: int
    reasons: tuple[tuple[float, str, str], ...]
    error: float | None = None
    bf16: float | None = None


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="models whose name contains one of these")
    parser.add_argument("--no-errors", action="store_true", help="explain only, compute nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of coverage.md")
    args = parser.parse_args(arguments)
    chosen = [m for m in MODELS if not args.only or any(o.lower() in m.name.lower() for o in args.only)]
    began, found = time.monotonic(), []
    for model in chosen:
        found.append(cover(model, errors=not args.no_errors))
        print(f"{time.monotonic() - began:5.0f} s  {line(found[-1])}", flush=True)
    if not args.only:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "coverage.md").write_text(table(found), encoding="utf-8")
    return 0


def cover(model: Model, *, errors: bool = True) -> Covered:
    """Explain the model in its published sizes; compute a small one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._dynamo.reset()
        report = explained(model)
        error, bf16 = small_errors(model) if errors else (None, None)
    return Covered(
        model.name, report.flops_share, report.regions, len(report.distinct), left(report), error, bf16
    )


def explained(model: Model, *, small: bool = False) -> torch_xdna.Report:
    """On the meta device, unless small: some models look at their inputs' values, and those have none there."""
    with torch.device("cpu" if small else "meta"):
        encoder, inputs = model.build(small), model.inputs(small)
    return torch_xdna.explain(encoder, **inputs)


def left(report: torch_xdna.Report) -> tuple[tuple[float, str, str], ...]:
    """The heaviest of what runs eager."""
    total = sum(row.flops for row in report.rows) or 1
    weights: Counter[tuple[str, str]] = Counter()
    for row in report.rows:
        if row.where == EAGER:
            weights[row.op.removeprefix("aten."), row.reason] += row.flops
    return tuple((n / total, *key) for key, n in weights.most_common(REASONS) if n)


def small_errors(model: Model) -> tuple[float, float]:
    """Of a small model on the emulator and in eager bf16, against float64."""
    torch.manual_seed(0)
    encoder, inputs = model.build(True), model.inputs(True)
    with torch.no_grad():
        exact = _first(encoder.double()(**{k: _to(v, torch.float64) for k, v in inputs.items()}))
        bf16 = _first(encoder.bfloat16()(**{k: _to(v, torch.bfloat16) for k, v in inputs.items()}))
        torch.manual_seed(0)
        encoder = model.build(True)
        run = torch.compile(encoder, backend="xdna", options={"device": "emulator"})
        ours = _first(run(**inputs))
    keep = _true_rows(inputs, exact)
    return relative(ours, exact, keep), relative(bf16, exact, keep)


def relative(found: Tensor, exact: Tensor, keep: Any) -> float:
    difference = (found.double() - exact)[keep]
    return float(difference.square().mean().sqrt() / exact[keep].square().mean().sqrt())


def _true_rows(inputs: Any, exact: Tensor) -> Any:
    """Rows that are no padding: nobody looks at the others."""
    mask = inputs.get("attention_mask")
    return mask.bool() if mask is not None and mask.shape == exact.shape[:2] else ...


def _to(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def line(c: Covered) -> str:
    errors = "" if c.error is None else f", error {c.error:.1e} (bf16 {c.bf16:.1e})"
    return f"{c.name}: {100 * c.share:.1f} % in {c.regions} regions of {c.graphs} graphs{errors}"


def table(found: Sequence[Covered]) -> str:
    """Markdown."""
    lines = [
        "# Coverage: how much of other encoders runs on the device",
        "",
        "Written by `python benchmarks/coverage.py`, which says in its first lines what the columns are. Random",
        "weights; nothing here has run on hardware, and nothing is a time.",
        "",
        f"torch {torch.__version__.split('+')[0]}, transformers {_version('transformers')}",
        "",
        "| model | share of the arithmetic | regions | error | eager bf16's | most of what is left |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for c in found:
        errors = ["", ""] if c.error is None else [f"{c.error:.1e}", f"{c.bf16:.1e}"]
        why = "; ".join(f"{100 * part:.1f} %: {op}, {reason}" for part, op, reason in c.reasons)
        lines.append(
            f"| {c.name} | {100 * c.share:.1f} % | {c.regions} | {errors[0]} | {errors[1]} | {why} |"
        )
    return "\n".join(lines) + "\n"


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
