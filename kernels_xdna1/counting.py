"""Counts and schedules what each kernel issues per call, with the counting build, and keeps it in cycles.json.

`python -m torch_xdna.kernels_xdna1 count` writes the file; nothing else is generated from hardware or by hand. A
variant is what a call's cost depends on: GELU or not, this column's object or not, the kind of a row operation. Calls
whose cost varies (first and last block of a row, key blocks that raise a maximum) are averaged over one typical pass.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any

import numpy as np

from torch_xdna.kernels_xdna1 import loops
from torch_xdna.kernels_xdna1.cycles import COUNTS_FILE
from torch_xdna.kernels_xdna1.description import BY_NAME
from torch_xdna.kernels_xdna1.host import SLOTS, Kernels, load
from torch_xdna.kernels_xdna1.loops import LoopTime, Timing

WIDTH = 512
"""Columns of the rows of a statistics pass: whisper-base."""
KEYS = 1500
SCALE = 0.125 * np.log2(np.e)

Counts = dict[str, dict[str, Any]]


def count() -> Counts:
    """{"kernel" or "kernel/variant": slots (operations per call), cycles, straight (of them outside innermost loops),
    code (bytes by function), meets (cycles in which two operands are reached at once), loops}."""
    kernels = load(debug=True, counting=True)
    bench = _Bench(kernels)
    found: Counts = {}
    for name, run in bench.runs().items():
        bench.timings, bench.meets = [], Counter()
        kernels.counts()
        calls = run()
        found[name] = {
            "slots": {slot: round(n / calls, 2) for slot, n in kernels.counts().items()},
            "cycles": round(mean(timing.cycles for timing in bench.timings), 1),
            "straight": round(mean(timing.straight for timing in bench.timings), 1),
            "code": _code(bench.timings),
            "meets": {" ".join(pair): round(n / calls, 1) for pair, n in sorted(bench.meets.items())},
            "loops": [_loop(loop, bench.timings) for loop in _loops(bench.timings)],
        }
    return found


def _loops(timings: list[Timing]) -> list[LoopTime]:
    """Every loop of the calls once."""
    return list({(loop.name, loop.trips): loop for timing in timings for loop in timing.loops}.values())


def _loop(loop: LoopTime, timings: list[Timing]) -> dict[str, Any]:
    """`times` and `cycles` are means over the calls."""
    same = [
        found for t in timings for found in t.loops if (found.name, found.trips) == (loop.name, loop.trips)
    ]
    placed = loop.schedule
    return {
        "name": loop.name, "trips": loop.trips, "times": round(sum(f.times for f in same) / len(timings), 2),
        "ii": placed.ii, "mii": placed.mii, "stages": placed.stages, "bound": placed.bound,
        "cycles": round(sum(f.cycles for f in same) / len(timings), 1),
    }  # fmt: skip


def _code(timings: list[Timing]) -> dict[str, int]:
    """Bytes of code by function; what one call does not reach another may."""
    found: dict[str, int] = {}
    for timing in timings:
        for function, bundles in timing.code.items():
            found[function] = max(found.get(function, 0), bundles)
    return found


def write() -> None:
    COUNTS_FILE.write_text(as_text(count()))


def as_text(counts: Counts) -> str:
    return json.dumps({"slots": list(SLOTS), "per_call": counts}, indent=1) + "\n"


class _Bench:
    """Operands with plausible contents, and one run per kernel and variant that returns its number of calls."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self.timings: list[Timing] = []
        self.meets: Counter[tuple[str, ...]] = Counter()
        random = np.random.default_rng(0)
        self.blocks = [_buffer(4096, np.uint16) for _ in range(3)]
        for block in self.blocks:
            values = random.standard_normal(4096, np.float32)
            block[:] = values.view(np.uint32) >> 16
        self.c, self.a0, self.a1, self.params = (_buffer(4096, np.uint16) for _ in range(4))
        self.acc, self.hdr = _buffer(4096, np.float32), _buffer(64, np.int32)

    def runs(self) -> dict[str, Callable[[], int]]:
        call = self._call
        block, other, _ = self.blocks
        named: dict[str, Callable[[], int]] = {
            "read_header": lambda: call("read_header", self.params, self.hdr),
            "gemm_init": lambda: call("gemm_init", self.acc),
            "gemm_step": lambda: call("gemm_step", block, other, self.acc),
            "gemm_params": lambda: self._params(0),
            "gemm_params/gelu": lambda: self._params(1, residual=1),
            "gemm_finish/gelu": lambda: self._finish(0, gelu=1),
            "gemm_residual": lambda: call("gemm_residual", block, self.acc, 0, 0),
            "gemm_residual/skip": lambda: call("gemm_residual", block, self.acc, 0, 1),
            "gemm_finish": lambda: self._finish(0),
            "gemm_finish/keys": lambda: self._finish(1),
            "gemm_finish/values": lambda: self._finish(2),
            "attn_q": lambda: call("attn_q", block, self.c, 0, 0),
            "attn_q/skip": lambda: call("attn_q", block, self.c, 0, 1),
            "attn_init": lambda: call("attn_init", self.a1, self.acc),
            "attn_k": self._keys,
            "attn_finish": lambda: call("attn_finish", self.acc, self.a1, self.c),
        }
        for kind, name in enumerate(("layer_norm", "softmax")):
            named[f"row_stats/{name}"] = partial(self._statistics, kind)
        for kind, name in enumerate(("layer_norm", "softmax", "gelu", "add")):
            named[f"row_apply/{name}"] = partial(self._apply, kind)
        return named

    def _call(self, name: str, *arguments: np.ndarray | int) -> int:
        addresses = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        getattr(self.kernels, name)(*addresses)
        operations = loops.trace(self.kernels.library)
        self.timings.append(Timing(operations))
        operands = [
            (o.name, a) for o, a in zip(BY_NAME[name].operands, arguments) if isinstance(a, np.ndarray)
        ]
        names = {o.region: _operand(o.at, operands) for o in operations if o.region >= 0}
        for pair, count in self.timings[-1].meets.items():
            self.meets[tuple(sorted(names[region] for region in pair))] += count
        return 1

    def _params(self, gelu: int, residual: int = 0) -> int:
        self.params.view(np.int32)[64:66], self.hdr[3] = (0, gelu), residual
        self.acc[:] = 1.0
        return self._call("gemm_params", self.params, self.acc, self.hdr)

    def _finish(self, order: int, gelu: int = 0) -> int:
        header = self.hdr
        header[6:9], header[32:34], header[3] = (0, 1500, 6), (order, gelu), 0
        return self._call("gemm_finish", self.acc, self.c, self.hdr, 3, 1)

    def _keys(self) -> int:
        header, upper = self.hdr, np.float32(SCALE).view(np.int32) & -65536
        header[9], header[10] = KEYS, upper
        header[11] = np.float32(SCALE - upper.view(np.float32)).view(np.int32) & -65536
        self._call("attn_init", self.a1, self.acc)
        self.kernels.counts()
        self.timings, self.meets = [], Counter()
        calls = -(-KEYS // 64)
        return sum(
            self._call(
                "attn_k",
                self.blocks[k % 2],
                self.blocks[2],
                self.a0,
                self.a1,
                self.acc,
                self.hdr,
                k,
            )
            for k in range(calls)
        )

    def _row_header(self, kind: int) -> None:
        header = self.hdr
        header[2], header[5], header[9], header[12] = WIDTH // 64, kind, WIDTH, WIDTH
        header[10], header[13] = np.float32(1e-5).view(np.int32), np.float32(1 / WIDTH).view(np.int32)

    def _statistics(self, kind: int) -> int:
        self._row_header(kind)
        return sum(
            self._call("row_stats", self.blocks[k % 3], self.acc, self.hdr, k, 0) for k in range(WIDTH // 64)
        )

    def _apply(self, kind: int) -> int:
        self._row_header(kind)
        objects = 8 if kind == 3 else 4
        held = (self.a0, self.a1, self.acc, self.hdr)
        return sum(self._call("row_apply", self.blocks[0], self.c, *held, 0, j, 0) for j in range(objects))


def _operand(address: int, operands: list[tuple[str, np.ndarray]]) -> str:
    """The name of the operand that an address lies in."""
    return next(n for n, a in operands if a.ctypes.data <= address < a.ctypes.data + a.nbytes)


def _buffer(elements: int, dtype: type) -> np.ndarray:
    """Zeros at a multiple of 64 bytes."""
    size = elements * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype)
