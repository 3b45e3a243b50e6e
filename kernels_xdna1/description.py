"""What the overlay's kernels are: one entry per C++ function, read by the overlay, the array simulator and the docs.

Numpy and torch are not needed here. Sizes are bytes. Layouts and header words: `contract`; what a call takes: `cycles`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_xdna.kernels_xdna1.contract import BLOCK_BYTES, HEADER_BYTES, SUMS_BYTES


@dataclass(frozen=True)
class Operand:
    """An argument of a kernel: a buffer (`order` names its layout, `bytes` its size) or an int32 (`order` is "int")."""

    name: str
    order: str
    bytes: int
    written: bool = False

    @property
    def is_buffer(self) -> bool:
        return self.order != "int"

    @property
    def c_type(self) -> str:
        if not self.is_buffer:
            return "int32_t"
        element = {"sums": "float", "header": "int32_t"}.get(self.order, "bfloat16")
        return f"{element} *" if self.written else f"const {element} *"


def _block(name: str, order: str, written: bool = False) -> Operand:
    return Operand(name, order, BLOCK_BYTES, written)


def _int(name: str) -> Operand:
    return Operand(name, "int", 4)


_ACC, _ACC_OUT = Operand("acc", "sums", SUMS_BYTES), Operand("acc", "sums", SUMS_BYTES, True)
_HDR, _HDR_OUT = Operand("hdr", "header", HEADER_BYTES), Operand("hdr", "header", HEADER_BYTES, True)


@dataclass(frozen=True)
class Kernel:
    """A C++ function of kernels/`name`.cc. `op` is the overlay's loop that calls it."""

    name: str
    op: str
    does: str
    operands: tuple[Operand, ...]

    @property
    def signature(self) -> str:
        """The declaration in C."""
        return (
            f"void {self.name}({', '.join(f'{o.c_type} {o.name}'.replace('* ', '*') for o in self.operands)})"
        )

    @property
    def buffers(self) -> tuple[Operand, ...]:
        return tuple(o for o in self.operands if o.is_buffer)


KERNELS = (
    Kernel("read_header", "all", "keep a header object's words", (_block("a", "A"), _HDR_OUT)),
    Kernel("gemm_init", "gemm", "acc = 0", (_ACC_OUT,)),
    Kernel("gemm_step", "gemm, attention", "acc += a b", (_block("a", "A"), _block("b", "B"), _ACC_OUT)),
    Kernel(
        "gemm_params",
        "gemm",
        "acc += bias, then GELU if asked for",
        (_block("b", "panel"), _ACC_OUT, _HDR_OUT),
    ),
    Kernel(
        "gemm_residual", "gemm", "acc += a if q is col", (_block("a", "A"), _ACC_OUT, _int("q"), _int("col"))
    ),
    Kernel(
        "gemm_finish",
        "gemm",
        "c = bf16(acc) in the panel's order, zero outside the valid rows",
        (_ACC_OUT, _block("c", "A", True), _HDR, _int("o"), _int("row")),
    ),
    Kernel(
        "attn_q",
        "attention",
        "c = a if q is col",
        (_block("a", "A"), _block("c", "A", True), _int("q"), _int("col")),
    ),
    Kernel(
        "attn_init", "attention", "O = 0, sums and maxima empty", (_block("a1", "scratch", True), _ACC_OUT)
    ),
    Kernel(
        "attn_k",
        "attention",
        "P = 2^(scaled scores - maximum), O and sums brought to the new maximum",
        (
            _block("b", "B"),
            _block("c", "A"),
            _block("a0", "A", True),
            _block("a1", "scratch", True),
            _ACC_OUT,
            _HDR,
            _int("k"),
        ),
    ),
    Kernel(
        "attn_finish",
        "attention",
        "c = bf16(O / sum)",
        (_ACC, _block("a1", "scratch", True), _block("c", "A", True)),
    ),
    Kernel(
        "row_stats",
        "row",
        "moments (layer_norm) or maximum and sum of exponentials (softmax)",
        (_block("b", "share"), _ACC_OUT, _HDR_OUT, _int("k"), _int("row")),
    ),
    Kernel(
        "row_apply",
        "row",
        "results of layer_norm, softmax, gelu or add for 16 rows",
        (
            _block("b", "share"),
            _block("c", "pieces", True),
            _block("a0", "vector"),
            _block("a1", "vector"),
            _ACC_OUT,
            _HDR,
            _int("g"),
            _int("j"),
            _int("row"),
        ),
    ),
)

BY_NAME = {kernel.name: kernel for kernel in KERNELS}
