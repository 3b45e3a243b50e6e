"""fp32 <-> bf16 with numpy (bf16 as uint16): works where neither torch nor ml_dtypes is installed."""

from __future__ import annotations

import numpy as np

from torch_xdna.lowering.host_data import native

QUIET_NAN = 0x7FC0
FEW = 1 << 14  # values that are not worth a compiler's start


def to_bf16(values: np.ndarray) -> np.ndarray:
    """fp32 (any shape) -> bits of bf16 (uint16), rounded to nearest even; NaN becomes a quiet NaN."""
    floats = np.ascontiguousarray(values, dtype=np.float32)
    if floats.size > FEW and (compiled := native.functions()):
        return compiled.to_bf16(floats)
    bits = floats.view(np.uint32)
    # Adding 0x7FFF plus the lowest kept bit carries into the kept half exactly when RNE rounds up.
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    out = rounded.astype(np.uint16)
    nan = np.isnan(floats)
    if nan.any():
        out[nan] = (bits[nan] >> np.uint32(16)).astype(np.uint16) & np.uint16(0x8000) | np.uint16(QUIET_NAN)
    return out.reshape(np.shape(values))


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """uint16 bits of bf16 -> fp32, exact."""
    return (np.asarray(bits, dtype=np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_bf16(values: np.ndarray) -> np.ndarray:
    """fp32 -> the nearest bf16 value, as fp32."""
    return from_bf16(to_bf16(values))
