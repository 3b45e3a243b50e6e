"""The emulator: a region's ops on the CPU with the NPU's roundings; the default where there is no NPU.

Read chunk_plan.py (what runs together), chunk.py (one chunk of rows), numerics.py (the roundings), native_bf16.py (the
CPU's own bf16 instead, where it has one), in this order.

Design notes
- A product of bf16 values is an fp32 product. On a CPU without bf16 instructions torch's own bf16 linear takes 3 to
  4 times as long as fp32 (52 against 14 ms for 1500 x 512 x 1536, two threads, otherwise idle). With them (AMX) it
  takes a seventh (1.1 against 7.5 ms for 750 x 512 x 2048, one thread), and oneDNN fuses bias, GELU or residual before
  the one rounding: whole encoders take 0.39 (tiny), 0.30 (base), 0.29 (small) x eager fp32, eager bf16 0.35, 0.32, 0.31
  (medians of 9 turns on 2 cores of a Xeon).
- Results land in memory that is kept. Into fresh pages the same product took 1.1 to 1.5 times as long.
- Threads run chunks, not kernels (workers.py), and meet once per layer.
- Where time goes with fp32 products (base, CPU time of one core, each kernel's minimum over 9 runs in turns with
  eager, before pieces were made larger and attention got blocks of keys): linear and conv 496 ms (eager 564),
  attention 430 (eager's flash kernel 385: it need not round p and does its passes in registers), conversions to bf16
  and back 78, gelu 26 (52), layer_norm 10 (10). In sum 1.10 x eager's; a part of that is the profiler's cost per call.
- What did not help: MKL's and oneDNN's packed weights (they fit one number of rows only, and allocate their result;
  5 % at best); torch's flash attention in bf16 (1.08 x its fp32 time, and p is rounded relative to another maximum,
  so it does not agree with the kernel); leaving p unrounded (10 % of attention, but 1.7e-3 relative distance from
  what the kernel computes on random data, nearly all that may be spent); pieces that fit the L2 cache (chunk.py).
"""

from __future__ import annotations

from torch_xdna.devices.emulator.executable import EmulatorExecutable
from torch_xdna.lowering.ops import Region

__all__ = ["EmulatorDevice", "EmulatorExecutable"]


class EmulatorDevice:
    """Takes every region of the ops in lowering/ops.py, on every machine that runs torch."""

    name = "emulator"

    def prepare(self, region: Region) -> EmulatorExecutable:
        return EmulatorExecutable(region)

    def prepare_length(self, region: Region, lengths: frozenset[int]) -> EmulatorExecutable:
        """Packed parameters have nothing to do with the number of rows."""
        return EmulatorExecutable(region)
