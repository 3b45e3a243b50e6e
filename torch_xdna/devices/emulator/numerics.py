"""The arithmetic of each op on rows of bf16 values, as stated in lowering/ops.py, with torch's kernels.

Matrix products run as fp32 products of bf16 values: such products are exact in fp32, so this is "bf16 operands,
fp32 accumulation" (in another order of summation), and on a CPU without bf16 instructions three to four times as
fast as torch's own bf16 product.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_xdna.devices.emulator.chunk_plan import pieces
from torch_xdna.lowering.ops import HEAD_SIZE, Activation

LOG2_E = 1.4426950408889634
# exp of scores up to this far from zero, sums of 2**20 of them and products with bf16 values stay finite and
# normal in fp32 (exp(60) = 1e26), so no maximum has to be subtracted.
SAFE_SCORE = 60.0
# Scores at a time: 768 KB as fp32, which stays in a core's L2 cache (1 MB here) from the product that writes them
# through five passes to the product that reads them. CPU time at 1500 x 1500 relative to torch's flash kernel, one
# core, runs in turns: 750 rows by 256 keys 1.17 (minimum) and, while others thrashed the shared cache, 1.31 (median);
# 375 rows by all keys 1.22 and 1.63.
SCORES = 192 * 1024


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """bf16 in and out, gamma and beta fp32; torch's mixed kernel keeps everything in fp32 up to the result."""
    return torch.native_layer_norm(x, gamma.shape, gamma, beta, eps)[0]


def softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, -1, dtype=torch.float32).to(torch.bfloat16)


# In place, on fp32 sums.
ACTIVATE = {Activation.GELU: torch.ops.aten.gelu_}


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x.float()).to(torch.bfloat16)


def attention(q: Tensor, k: Tensor, v: Tensor, out: Tensor, scores: Tensor, sums: Tensor) -> None:
    """softmax(q @ k.T) @ v for every head into out (n, 64 heads), fp32, not rounded yet.

    q (heads, n, 64): bf16 values times the scale; k, v (heads, t, 64): bf16 values; all fp32. The rest is scratch:
    scores (at least max(SCORES, 16 t, 64 n),), sums (2, n, 1).

    p = bf16(exp2(s - m)) for an integer m is bf16(exp2(s)) with another exponent, and the exponent cancels in the
    division. So m is 0 where a bound of the scores says that nothing can overflow or vanish: then no maximum has to
    be known, and keys can come block by block. Else m is the row's maximum rounded up, from all keys of few rows.
    NaN and Inf fail the comparison and take that way too.
    """
    (n, _), keys = q.shape[1:], k.shape[1]
    safe = (_score_bounds(q, k) <= SAFE_SCORE).tolist()
    for head, first_col in enumerate(range(0, out.shape[1], HEAD_SIZE)):
        rows_at_once = n if safe[head] else max(16, SCORES // max(keys, 1))
        keys_at_once = _equal_parts(keys, max(64, SCORES // max(n, 1))) if safe[head] else keys
        for first, last in pieces(n, rows_at_once):
            columns = out[first:last, first_col : first_col + HEAD_SIZE]
            total, more = sums[0, first:last], sums[1, first:last]
            for first_key, last_key in pieces(keys, keys_at_once):
                flat = scores[: (last - first) * (last_key - first_key)]
                p = flat.view(last - first, -1)
                torch.mm(q[head, first:last], k[head, first_key:last_key].t(), out=p)
                if not safe[head]:
                    torch.amax(p, -1, keepdim=True, out=total)
                    p.sub_(total.mul_(LOG2_E).ceil_().div_(LOG2_E))
                flat.exp_()
                _round_positive_(flat)
                if first_key == 0:
                    torch.sum(p, -1, keepdim=True, out=total)
                    torch.mm(p, v[head, first_key:last_key], out=columns)
                else:
                    total.add_(torch.sum(p, -1, keepdim=True, out=more))
                    columns.addmm_(p, v[head, first_key:last_key])
            columns.div_(total)


def _equal_parts(whole: int, largest: int) -> int:
    """The size of the fewest equal parts that are at most `largest`."""
    return -(-whole // max(1, -(-whole // largest)))


def _round_positive_(x: Tensor) -> None:
    """Round fp32 to bf16 values in place: half of the last bf16 bit is added, then the lower half is cut off.

    Two thirds of the time of a conversion to bf16 and back. Ties (one exponential in 65536) go up instead of to
    even. Inf and the NaNs that arithmetic makes stay what they are.
    """
    x.view(torch.int32).add_(0x8000).bitwise_and_(-0x10000)


def _score_bounds(q: Tensor, k: Tensor) -> Tensor:
    """(heads,) upper bounds of |q . k| by Cauchy and Schwarz; NaN or Inf where the operands hold such."""
    norm = torch.linalg.vector_norm
    return norm(q, dim=-1).amax(-1) * norm(k, dim=-1).amax(-1)
