"""One core's program in numpy: feeds the kernels blocks as the overlay does and gathers what comes out.

Matrices are float32 arrays that hold bf16 values; rows and columns are padded to whole blocks with zeros here.
"""

import numpy as np

HEADER_WORDS = 64


def to_bf16(x):
    """Bits of the nearest bf16 numbers, ties to even; NaN stays NaN."""
    x = np.ascontiguousarray(x, np.float32)
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), bits >> 16 | 0x40, rounded).astype(np.uint16)


def to_f32(bits):
    return (np.asarray(bits, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def rounded(x):
    """float32 with bf16 precision."""
    return to_f32(to_bf16(x)).reshape(np.shape(x))


def a_order(block):
    return np.ascontiguousarray(to_bf16(block).reshape(16, 4, 8, 8).transpose(0, 2, 1, 3)).reshape(-1)


def from_a_order(bits):
    return to_f32(bits).reshape(16, 8, 4, 8).transpose(0, 2, 1, 3).reshape(64, 64)


def b_order(block):
    """`block` is (k, n)."""
    return np.ascontiguousarray(to_bf16(block).reshape(8, 8, 16, 4).transpose(0, 2, 1, 3)).reshape(-1)


def from_b_order(bits):
    return to_f32(bits).reshape(8, 16, 8, 4).transpose(0, 2, 1, 3).reshape(64, 64)


def from_sums(acc):
    return acc.reshape(16, 16, 4, 4).transpose(0, 2, 1, 3).reshape(64, 64)


def to_sums(x):
    return np.ascontiguousarray(
        np.asarray(x, np.float32).reshape(16, 4, 16, 4).transpose(0, 2, 1, 3)
    ).reshape(-1)


def padded(x, rows=64, cols=64):
    return np.pad(np.asarray(x, np.float32), [(0, -x.shape[0] % rows), (0, -x.shape[1] % cols)])


def bits_of(x):
    return int(np.asarray(x, np.float32).reshape(1).view(np.int32)[0])


def parameter_block(bias, order=0, gelu=False):
    block = np.zeros(4096, np.uint16)
    block.view(np.float32)[:64] = bias
    block.view(np.int32)[64:66] = order, gelu
    return block


class Core:
    """The static buffers of a core and the loops of its program, over one row of cores (`row`) or all four."""

    def __init__(self, kernels):
        self.kernels = kernels
        # 64-byte aligned, with a poisoned margin that must stay as it was.
        self.acc = self._buffer(4096, np.float32)
        self.hdr = self._buffer(HEADER_WORDS, np.int32)
        self.a0 = self._buffer(4096, np.uint16)
        self.a1 = self._buffer(4096, np.uint16)
        self.c = self._buffer(4096, np.uint16)

    @staticmethod
    def _buffer(elements, dtype):
        size = elements * np.dtype(dtype).itemsize
        raw = np.full(size + 64, 0xA5, np.uint8)
        start = -raw.ctypes.data % 64
        return raw[start : start + size].view(dtype)

    def call(self, name, *arguments):
        """Arrays are copied to aligned memory where they are inputs of the caller's own."""
        held = [self._aligned(a) if isinstance(a, np.ndarray) else a for a in arguments]
        getattr(self.kernels, name)(*(a.ctypes.data if isinstance(a, np.ndarray) else int(a) for a in held))

    def _aligned(self, array):
        if array.ctypes.data % 64 == 0:
            return array
        copy = self._buffer(array.size, array.dtype)
        copy[:] = array.reshape(-1)
        return copy

    def header(self, *words, **named):
        block = np.zeros(4096, np.uint16)
        values = block.view(np.int32)
        values[: len(words)] = words
        for at, value in named.items():
            values[int(at[1:])] = value
        self.call("read_header", block, self.hdr)

    def gemm(self, x, w, bias=None, *, gelu=False, residual=None, order=0, valid=None):
        """x (m, k), w (n, k): the product by blocks; orders 1 and 2 return lists of raw key or value blocks."""
        m, n = x.shape[0], w.shape[0]
        x, w = padded(x, 256), padded(w)
        groups, blocks_n, blocks_k = len(x) // 256, len(w) // 64, x.shape[1] // 64
        bias = np.zeros(len(w), np.float32) if bias is None else np.pad(bias, (0, -len(bias) % 64))
        residual = None if residual is None else padded(residual, 256)
        first, end = valid or (0, 1 << 20)
        self.header(
            1, blocks_n * groups, blocks_k, 1 if residual is not None else 0, 0, 0, first, end, groups
        )
        out = np.zeros((len(x), len(w)), np.float32)
        raw = {}
        for o in range(blocks_n * groups):
            j, g = divmod(o, groups)
            cols = slice(64 * j, 64 * j + 64)
            for row in range(4):
                rows = slice(64 * (4 * g + row), 64 * (4 * g + row) + 64)
                self.call("gemm_init", self.acc)
                for k in range(blocks_k):
                    ks = slice(64 * k, 64 * k + 64)
                    self.call("gemm_step", a_order(x[rows, ks]), b_order(w[cols, ks].T), self.acc)
                self.call("gemm_params", parameter_block(bias[cols], order, gelu), self.acc, self.hdr)
                if residual is not None:
                    for q in range(2):  # the other column's block first, which must not count
                        block = residual[rows, cols] if q == 1 else np.full((64, 64), 1e3)
                        self.call("gemm_residual", a_order(block), self.acc, q, 1)
                self.call("gemm_finish", self.acc, self.c, self.hdr, o, row)
                raw[4 * g + row, j] = self.c.copy()
                if order == 0:
                    out[rows, cols] = from_a_order(self.c)
        return out[:m, :n] if order == 0 else raw

    def attention(self, q, k, v, scale=0.125, pad=0.0):
        """One head: q (tq, 64), k and v (tk, 64). `pad` fills the keys beyond the valid ones."""
        tq, tk = len(q), len(k)
        q = padded(q)
        k, v = (np.pad(x, [(0, -tk % 64), (0, 0)], constant_values=pad) for x in (k, v))
        c = np.float32(scale * np.log2(np.e))
        hi = rounded(c)
        words = {"w9": tk, "w10": bits_of(hi), "w11": bits_of(rounded(c - hi))}
        self.header(2, len(q) // 64, len(k) // 64, **words)
        out = np.zeros_like(q)
        for i in range(0, len(q), 64):
            self.call("attn_q", a_order(np.full((64, 64), 7.0)), self.c, 0, 1)
            self.call("attn_q", a_order(q[i : i + 64]), self.c, 1, 1)
            self.call("attn_init", self.a1, self.acc)
            for b in range(len(k) // 64):
                keys = slice(64 * b, 64 * b + 64)
                self.call("attn_k", b_order(k[keys].T), self.c, self.a0, self.a1, self.acc, self.hdr, b)
                self.call("gemm_step", self.a0, b_order(v[keys]), self.acc)
            self.call("attn_finish", self.acc, self.a1, self.c)
            out[i : i + 64] = from_a_order(self.c)
        return out[:tq]

    def rows(self, kind, x, y=None, gamma=None, beta=None, eps=1e-5):
        """Row operations: kind 0 layer_norm, 1 softmax, 2 gelu, 3 add; x (rows, cols)."""
        rows, cols = x.shape
        x = padded(x, 64, 256)
        true_blocks = -(-cols // 64)
        outputs, per_output = x.shape[1] // 256, 8 if kind == 3 else 4
        passes = true_blocks if kind in (0, 1) else 0
        values = {
            "w9": cols,
            "w10": bits_of(eps),
            "w12": cols,
            "w13": bits_of(np.float32(1) / np.float32(cols)),
        }
        self.header(3, len(x) // 64, passes, outputs, per_output, kind, **values)
        for held, values in ((self.a0, gamma), (self.a1, beta)):
            held[:] = 0
            if values is not None:
                held.view(np.float32)[:cols] = values
        y = None if y is None else padded(y, 64, 256)
        out = np.zeros_like(x)
        for i in range(0, len(x), 64):
            for row in range(4):
                for k in range(passes):
                    self.call(
                        "row_stats", a_order(x[i : i + 64, 64 * k : 64 * k + 64]), self.acc, self.hdr, k, row
                    )
                for g in range(outputs):
                    for j in range(per_output):
                        piece = j // 2 if kind == 3 else j
                        source = y if kind == 3 and j % 2 else x
                        at = 64 * (4 * g + piece)
                        block = a_order(source[i : i + 64, at : at + 64])
                        self.call("row_apply", block, self.c, self.a0, self.a1, self.acc, self.hdr, g, j, row)
                    pieces = to_f32(self.c).reshape(4, 4, 8, 4, 8).transpose(1, 3, 0, 2, 4).reshape(16, 256)
                    out[i + 16 * row : i + 16 * row + 16, 256 * g : 256 * g + 256] = pieces
        return out[:rows, :cols]
