"""What every event costs: one dataclass read by the closed form and by the array simulator's clock.

Times of the array (streams, descriptors, controller, kernels) are in core cycles; times of the memory are in
ns, because DDR does not slow down with the array's clock. Row ids (`M5a`) are those of `calibration.csv`.
Constants that are fitted rather than read off say so; `lowering/time/calibrate.py` repeats the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from torch_xdna.lowering.time import kernels

PAGE = 4096  # bytes; runs that lie in one page are cheaper than runs that each open their own


@dataclass(frozen=True)
class Costs:
    """Costs at one clock, which has no default: real machines run at 0.8, 1.03, 1.31, 1.6 or 1.8 GHz."""

    clock_ghz: float

    # Shim DMA, core cycles. A task's start: the first of a channel is cold; the next ones follow a queued
    # task (M6).
    mm2s_start_cold: float = 1330
    mm2s_start_next: float = 325
    s2mm_start_cold: float = 341
    s2mm_start_next: float = 179
    mm2s_word: float = 1.05  # cycles per 32-bit word, memory to array (M5a; 6.9 GB/s at 1.8 GHz in M2)
    s2mm_word: float = 1.00  # array to memory (M5b)

    # Streams and memtiles: 32 bit per cycle and channel, a memtile in between costs latency, not throughput.
    stream_bytes: float = 4.0
    lock: float = 10  # assumed: acquire or release of a lock by a DMA or a core
    object_overhead: float = 20  # assumed: acquire + release of one FIFO object in the core's program

    # Controller, core cycles per instruction (D14). A task is blockwrite + address patch + push = 700 in
    # total; 145 ns per instruction at 1.8 GHz (D5) says the same: 3 x 261.
    write32: float = 100
    # Between one push and the next: after a push onto an idle channel, and onto one that has work (D14, from xdna-emu's
    # finding "Phase 2c", by which other records go on meanwhile). Measured on one channel at a time; that the
    # controller's next push waits whatever its channel is assumed, as xdna-emu does.
    push_cold: float = 3050
    push_next: float = 520
    maskwrite: float = 210  # read, change, write back (D14)
    blockwrite: float = 85
    blockwrite_word: float = 14.75  # 8 words: 203
    address_patch: float = 397
    sync: float = 261  # assumed equal to the mean instruction of D5; the waiting itself comes on top
    dispatch_s: float = 250e-6  # fixed time of one large instruction stream (D5)
    overlay_change_s: float = 1.4e-3  # (D7)

    # DDR, memory side. Reads are bound by bandwidth or by requests; writes go the other way and overlap with
    # reads.
    read_gbs: float = 47.62  # linear, 8 channels (M3)
    write_gbs: float = 28.1  # linear, 4 channels (M1): the channels' own limit at 1.8 GHz
    run_ns: float = 2.29  # per contiguous run of a read; fitted on the array rows
    page_ns: float = 3.56  # per page opened by short runs; fitted on the array rows

    better_gemm: bool = False  # what-if: products at the best published rate
    stock_kernels: bool = False  # the rates that were assumed before the kernels were rewritten

    def cycles(self, seconds: float) -> float:
        return seconds * self.clock_ghz * 1e9

    def seconds(self, cycles: float) -> float:
        return cycles / (self.clock_ghz * 1e9)

    def mm2s_cycles(self, nbytes: float) -> float:
        """The words of one transfer from memory on one shim channel, without the task's start."""
        return nbytes / 4 * self.mm2s_word

    def s2mm_cycles(self, nbytes: float) -> float:
        return nbytes / 4 * self.s2mm_word

    def stream_cycles(self, nbytes: float) -> float:
        """One object between memtile and core (every word of a stream takes one cycle)."""
        return nbytes / self.stream_bytes

    def controller_cycles(self, kind: str, words: int = 1) -> float:
        """Controller time of one instruction: write32, maskwrite, blockwrite, address_patch or sync."""
        if kind == "blockwrite":
            return self.blockwrite + words * self.blockwrite_word
        return {
            "write32": self.write32,
            "maskwrite": self.maskwrite,
            "address_patch": self.address_patch,
            "sync": self.sync,
        }[kind]

    @property
    def task_cycles(self) -> float:
        """Controller time to configure and push one shim DMA task."""
        return self.controller_cycles("blockwrite", 8) + self.address_patch + self.write32

    def read_seconds(self, nbytes: float, run: float, pages: float | None = None) -> float:
        """DDR time of `nbytes` read in contiguous runs of `run` bytes.

        `pages`: how many pages the runs open in total; default one per run, or as many as a long run covers.
        Reads are aggregated over all channels: the limits of single channels are `mm2s_cycles`.
        """
        if nbytes == 0:
            return 0.0
        runs = nbytes / run
        opened = runs * ceil(run / PAGE) if pages is None else pages
        return max(nbytes / self.read_gbs, runs * self.run_ns + opened * self.page_ns) * 1e-9

    def write_seconds(self, nbytes: float) -> float:
        return nbytes / self.write_gbs * 1e-9

    def read_cycles(self, nbytes: float, run: float) -> float:
        """`read_seconds` in core cycles: what one transfer takes of the memory that all channels share."""
        return self.cycles(self.read_seconds(nbytes, run))

    def write_cycles(self, nbytes: float) -> float:
        return self.cycles(self.write_seconds(nbytes))

    def kernel_cycles(self, name: str, variant: str = "") -> float:
        """One call of a core kernel; see `lowering.time.kernels.kernel_cycles`."""
        return kernels.kernel_cycles(
            name, variant, better_gemm=self.better_gemm, stock_kernels=self.stock_kernels
        )
