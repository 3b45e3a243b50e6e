"""The arithmetic of each op on rows of bf16 values, as stated in lowering/ops.py, with torch's kernels.

Matrix products run as fp32 products of bf16 values: such products are exact in fp32, so this is "bf16 operands,
fp32 accumulation" (in another order of summation), and on a CPU without bf16 instructions three to four times as
fast as torch's own bf16 product.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lowering.ops import HEAD_SIZE
from torch_xdna.devices.emulator.plan import pieces

LOG2_E = 1.4426950408889634
# exp of scores up to this far from zero, sums of 2**20 of them and products with bf16 values stay finite and
# normal in fp32 (exp(60) = 1e26), so no maximum has to be subtracted.
SAFE_SCORE = 60.0
# Scores of one head at a time: 2.5 MB as fp32. Fewer repack keys and values more often, more leave the cache
# (1500 keys: 375 rows fastest, 94 rows 10 % slower, 750 rows 20 %).
SCORES = 640 * 1024


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """bf16 in and out, gamma and beta fp32; torch's mixed kernel keeps everything in fp32 up to the result."""
    return torch.native_layer_norm(x, gamma.shape, gamma, beta, eps)[0]


def softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, -1, dtype=torch.float32).to(torch.bfloat16)


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x.float()).to(torch.bfloat16)


def rows_of_scores(rows: int, keys: int) -> int:
    """How many of a chunk's rows attention takes at a time: equal parts of at most SCORES scores (or 16 rows)."""
    most = max(16, SCORES // max(keys, 1))
    parts = max(1, -(-rows // most))
    return -(-rows // parts)


def attention(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, scores: Tensor, parts: Tensor, sums: Tensor
) -> None:
    """softmax(q @ k.T) @ v for every head into out (n, 64 heads), fp32, not rounded yet.

    q (heads, n, 64): bf16 values times the scale; k, v (heads, t, 64): bf16 values; all fp32. The rest is scratch
    for r = rows_of_scores(n, t) rows: scores (r t,), parts (r, 64), sums (r, 1).

    p = bf16(exp2(t - m)) for an integer m is bf16(exp2(t)) with another exponent, and the exponent cancels in the
    division. So m is 0 where a bound of the scores says that nothing can overflow or vanish (two passes over the
    scores less), else the row's maximum rounded up. NaN and Inf fail the comparison and take the longer way.
    """
    safe = (_score_bounds(q, k) <= SAFE_SCORE).tolist()
    for head, first_col in enumerate(range(0, out.shape[1], HEAD_SIZE)):
        for first, last in pieces(q.shape[1], len(sums)):
            n, part, total = last - first, parts[: last - first], sums[: last - first]
            flat = scores[: n * k.shape[1]]
            s = flat.view(n, -1)
            torch.mm(q[head, first:last], k[head].t(), out=s)
            if not safe[head]:
                torch.amax(s, -1, keepdim=True, out=total)
                s.sub_(total.mul_(LOG2_E).ceil_().div_(LOG2_E))
            flat.exp_()
            _round_positive_(flat)
            torch.sum(s, -1, keepdim=True, out=total)
            torch.mm(s, v[head], out=part)
            torch.div(part, total, out=out[first:last, first_col : first_col + HEAD_SIZE])


def _round_positive_(x: Tensor) -> None:
    """Round fp32 to bf16 values in place: half of the last bf16 bit is added, then the lower half is cut off.

    Half the time of a conversion to bf16 and back. Ties (one exponential in 65536) go up instead of to even. Inf
    and the NaNs that arithmetic makes stay what they are.
    """
    x.view(torch.int32).add_(0x8000).bitwise_and_(-0x10000)


def _score_bounds(q: Tensor, k: Tensor) -> Tensor:
    """(heads,) upper bounds of |q . k| by Cauchy and Schwarz; NaN or Inf where the operands hold such."""
    norm = torch.linalg.vector_norm
    return norm(q, dim=-1).amax(-1) * norm(k, dim=-1).amax(-1)
