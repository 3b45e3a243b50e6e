"""Estimated bytes of program memory per kernel and core, from what traced kernels of others took.

Nobody here compiled a kernel for the core. mlir-aie's traced npu1 kernels (Peano 22.0.0.2026092101, its skills/ folder)
are of the same kinds as ours, and their sizes scatter: two softmax kernels take 2,496 and 6,880 bytes, and the larger
one took 4,496 before it was scheduled deeper. `FACTOR` is that scatter: an estimate may be off by as much either way.
It is good for one thing, to say whether the whole is near 16 KB; `build-overlay` reads true sizes. What kernels share
(`stripe`, `gelu`: functions that are not inlined) counts once, with the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass

FACTOR = 1.7
"""Up or down: 2,496 and 6,880 bytes for two softmax kernels are this far from their geometric mean, 4,144."""
CORE_BYTES = 2560
"""The core's own loop: 2.5 KB where mlir-aie's lowering of it was compiled for RV32; IRON's smallest takes 880."""

# Program bytes of traced npu1 kernels (mlir-aie skills/, see above).
TRACED = {
    "partial softmax": 6880,
    "partial softmax, before": 4496,
    "rms_norm": 2192,
    "layer_norm": 2400,
    "softmax": 2496,
    "bf16 epilogue with GELU": 2720,
    "3x3 int8 convolution": 800,
    "int16 mm": 1024,
    "fused mm": 1280,
    "gelu": 784,
    "silu": 704,
}


@dataclass(frozen=True)
class Estimate:
    """`likes`: (traced kernel, share of it) whose sum is taken; `small`: bytes for a copy or a fill."""

    likes: tuple[tuple[str, float], ...] = ()
    small: int = 0

    @property
    def bytes(self) -> int:
        return round(self.small + sum(share * TRACED[name] for name, share in self.likes))

    @property
    def why(self) -> str:
        parts = [f"{share:g} x {name}" if share != 1 else name for name, share in self.likes]
        return " + ".join(parts + [f"{self.small} for loops that copy"] * bool(self.small))


# Which traced kernel each of ours resembles. Row operations of a kind that two kernels share are split between them.
ESTIMATES = {
    "read_header": Estimate(small=128),
    "gemm_init": Estimate(small=96),
    "gemm_step": Estimate((("fused mm", 1),)),
    "gemm_params": Estimate((("bf16 epilogue with GELU", 1),)),
    "gemm_residual": Estimate(small=256),
    "gemm_finish": Estimate(small=512),
    "attn_q": Estimate(small=160),
    "attn_init": Estimate(small=160),
    "attn_k": Estimate((("partial softmax, before", 0.5),)),
    "attn_finish": Estimate((("softmax", 0.25),)),
    "row_stats": Estimate((("layer_norm", 0.5), ("softmax", 0.5))),
    "row_apply": Estimate((("layer_norm", 0.5), ("softmax", 0.5)), small=128),
}
ONLY_LAYER_NORM = {
    "row_stats": Estimate((("layer_norm", 0.5),)),
    "row_apply": Estimate((("layer_norm", 0.5),)),
}


def core_bytes(kernels: tuple[str, ...], only_layer_norm: bool = False) -> int:
    """Estimated program bytes of a core with these kernels, its own loop included."""
    table = ESTIMATES | (ONLY_LAYER_NORM if only_layer_norm else {})
    return CORE_BYTES + sum(table[name].bytes for name in kernels)
