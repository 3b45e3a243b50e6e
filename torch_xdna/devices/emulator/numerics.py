"""The arithmetic of each op on a chunk of rows, as stated in lowering/ops.py, with torch's kernels.

Values are bf16 tensors. Matrix products run as fp32 products of bf16 values: such products are exact in fp32, so
this is "bf16 operands, fp32 accumulation" (in another order of summation), and on a CPU without bf16 instructions
three to four times as fast as torch's own bf16 product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowering.ops import HEAD_SIZE

LOG2_E = 1.4426950408889634
# exp of scores up to this far from zero, their sums over 2**20 keys and products with bf16 values stay finite and
# normal in fp32 (exp(60) = 1e26), so no maximum has to be subtracted.
SAFE_SCORE = 60.0
# Scores of one head and one piece of the chunk: 2.5 MB; smaller ones repack the keys more often, larger ones leave
# the cache (measured at 1500 keys: 375 rows best, 94 rows 5 % and 750 rows 20 % slower).
SCORES = 640 * 1024


def bf16(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """bf16 in and out; gamma, beta fp32; torch's mixed kernel keeps statistics and the result in fp32 until the end."""
    return torch.native_layer_norm(x, gamma.shape, gamma, beta, eps)[0]


def softmax(x: Tensor) -> Tensor:
    return bf16(torch.softmax(x, -1, dtype=torch.float32))


def gelu(x: Tensor) -> Tensor:
    return bf16(torch.nn.functional.gelu(x.float()))


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    scores: Tensor,
    sums: Tensor,
    part: Tensor,
    largest_score: Tensor,
) -> None:
    """softmax(q @ k.T) @ v for every head, before the last rounding; q already carries the scale.

    q (heads, n, 64), k and v (heads, t, 64), out (n, 64 heads), all fp32 holding bf16 values (q: their multiples).
    scores (>= n * t of them in pieces), sums (n,), part (n * 64,): scratch. largest_score (heads,): a bound on |s|.

    p = bf16(exp2(t - m)) for an integer m is bf16(exp2(t)) with another exponent, and the exponent cancels in the
    division: m is taken as 0 where the bound says that nothing can overflow or vanish, else as the row's maximum
    rounded up. That saves two passes over the scores. NaN and Inf fail the comparison and take the longer way.
    """
    heads, n, _ = q.shape
    keys = k.shape[1]
    piece = max(16, min(n, SCORES // max(keys, 1)))
    safe = (largest_score <= SAFE_SCORE).tolist()
    for head in range(heads):
        k_t, v_h = k[head].t(), v[head]
        columns = out[:, head * HEAD_SIZE : (head + 1) * HEAD_SIZE]
        for first in range(0, n, piece):
            last = min(first + piece, n)
            flat = scores[: (last - first) * keys]
            s = flat.view(last - first, keys)
            total = sums[: last - first].view(-1, 1)
            o = part[: (last - first) * HEAD_SIZE].view(-1, HEAD_SIZE)
            torch.mm(q[head, first:last], k_t, out=s)
            if not safe[head]:
                torch.amax(s, -1, keepdim=True, out=total)
                s.sub_(total.mul_(LOG2_E).ceil_().div_(LOG2_E))
            flat.exp_()
            round_positive_(flat)
            torch.sum(s, -1, keepdim=True, out=total)
            torch.mm(s, v_h, out=o)
            torch.div(o, total, out=columns[first:last])


def round_positive_(x: Tensor) -> None:
    """Round fp32 to bf16 values in place: half of the last bf16 bit is added, then the lower half is cut off.

    Ties go up, not to even: one exponential in 65536 can be a tie. Half the time of a conversion to bf16 and back.
    Inf and the NaNs that arithmetic makes stay what they are.
    """
    bits = x.view(torch.int32)
    bits.add_(0x8000).bitwise_and_(-0x10000)


def score_bounds(q: Tensor, k: Tensor) -> Tensor:
    """(heads,) upper bounds of |q . k| by Cauchy and Schwarz; NaN or Inf where the operands hold such."""
    norm = torch.linalg.vector_norm
    return norm(q, dim=-1).amax(-1) * norm(k, dim=-1).amax(-1)
