"""Modelled time: what each event costs, closed forms for products and encoders, and their calibration.

Every number that leaves this package is modelled, for a stated clock; nothing here was measured by this
project.
"""

from __future__ import annotations

from torch_xdna.lowering.time.costs import Costs
from torch_xdna.lowering.time.encoder import EncoderEstimate, estimate_encoder
from torch_xdna.lowering.time.estimate import Estimate
from torch_xdna.lowering.time.gemm import estimate_gemm

__all__ = ["Costs", "EncoderEstimate", "Estimate", "estimate_encoder", "estimate_gemm"]
