"""A small reference machine for programs: executes the symbolic transfers with fp32 numpy cores, untimed.

The cores follow `lowering.overlay.core_program`. Data are moved as late as possible and results written as early
as possible; a transfer may read only what a waited transfer (or the host) has written, and write only what no
outstanding transfer still has to read. Waiting for a task that can't complete is a deadlock.
"""

import math
from collections import deque

import numpy as np

from torch_xdna.lowering.commands.commands import Dma, MaskWrite, Wait
from torch_xdna.lowering.host_data import blocks
from torch_xdna.lowering.host_data.bf16 import from_bf16, round_bf16, to_bf16
from torch_xdna.lowering.overlay.core_program import CORE_PROGRAM, Acquire, Call, Loop, Release, Switch, Word

GRANULE = 512  # words: transfers are tracked in pieces of 2 KB
PIECE = 2 * GRANULE  # bf16
CHANNELS = {("MM2S", 0): "A", ("MM2S", 1): "B", ("S2MM", 0): "C"}


class Hazard(AssertionError):
    pass


def run(program, params, inputs):
    """The region's outputs, fp32."""
    activations = np.full(
        program.activations_bytes, 0x7F, np.uint8
    )  # 0x7f7f: a huge number where nobody wrote
    program.pack_inputs(inputs, activations)
    machine = Machine(program.columns, program.pack_weights(params), activations)
    machine.mark_written(program.input_ranges)
    for command in program.commands:
        if isinstance(command, Dma):
            machine.push(command)
        elif isinstance(command, Wait):
            machine.wait(command)
        else:
            assert isinstance(command, MaskWrite)  # where tokens go is the array simulator's to check
    machine.finish()
    return program.unpack_outputs(activations)


class Machine:
    def __init__(self, columns, weights, activations):
        self.columns = columns
        self.memory = [
            weights.view(np.uint16).reshape(-1, PIECE),
            activations.view(np.uint16).reshape(-1, PIECE),
        ]
        self.written = [np.ones(len(self.memory[0]), bool), np.zeros(len(self.memory[1]), bool)]
        self.reading = np.zeros(len(self.memory[1]), int)  # outstanding reads per piece
        self.tasks = {
            (c, p): deque() for c in range(columns) for p in "ABC"
        }  # [dma, pieces, next, source, gathered]
        self.cores = [[Core(self, c, r) for c in range(columns)] for r in range(4)]
        self.taken = {}  # (path, group): the objects so far, counted by reader
        self.results = {c: deque() for c in range(columns)}  # joined, not yet written
        self.joined = {c: [deque() for _ in range(4)] for c in range(columns)}

    def mark_written(self, ranges):
        for start, size in ranges:
            self.written[1][start // 2048 : (start + size) // 2048] = True

    def push(self, dma):
        path = CHANNELS[dma.direction, dma.channel]
        queue = self.tasks[dma.column, path]
        if len(queue) == 4:
            raise Hazard(f"fifth task: {dma}")
        live = [t[0].bd for p in "ABC" for t in self.tasks[dma.column, p]]
        if dma.bd in live or len(live) >= 14:
            raise Hazard(f"descriptor in flight: {dma}")
        source, touched = None if path == "C" else self.memory[dma.arg], np.zeros(0, int)
        if path != "C" and dma.sizes[3] % GRANULE:
            words = walk(dma, 1)
            touched = np.unique(words // GRANULE)
            if dma.arg != 1 or not self.written[1][touched].all():
                raise Hazard(f"gathers what is not written: {dma}")
            self.reading[touched] += (
                1  # until it is waited for: nobody may write there, so now is as good as later
            )
            source = source.view(np.uint32).reshape(-1)[words].view(np.uint16).reshape(-1, PIECE)
            pieces = np.arange(len(source))
        elif path != "C":
            pieces = walk(dma)
            if not self.written[dma.arg][pieces].all():
                raise Hazard(f"reads what is not written: {dma}")
            if dma.arg == 1:
                np.add.at(self.reading, pieces, 1)
        else:
            pieces = walk(dma)
            assert dma.arg == 1
            if self.reading[pieces].any():
                raise Hazard(f"overwrites what is still read: {dma}")
            others = [t[1] for c in range(self.columns) for t in self.tasks[c, "C"]]
            if any(np.isin(pieces, other).any() for other in others):
                raise Hazard(f"overwrites what is still being written: {dma}")
            self.written[1][pieces] = False
        queue.append([dma, pieces, 0, source, touched])
        if path == "C":
            self.drain(dma.column)

    def wait(self, wait):
        queue = self.tasks[wait.column, CHANNELS[wait.direction, wait.channel]]
        if not queue:
            raise Hazard(f"nothing to wait for: {wait}")
        self.advance()
        dma, pieces, done, _, gathered = queue.popleft()
        self.reading[gathered] -= 1
        if done < len(pieces):
            raise Hazard(f"deadlock: {dma} moved {done} of {len(pieces)} pieces")
        if dma.direction == "S2MM":
            self.written[1][pieces] = True

    def finish(self):
        assert not any(self.tasks.values()), "a token nobody waited for"
        assert not any(core.held["A"] or core.held["B"] for row in self.cores for core in row)
        assert not any(self.results.values()), "results that no transfer took"
        for column in range(self.columns):
            assert self.next_object(column, "B") is None

    def advance(self):
        while any([core.step() for row in self.cores for core in row]):
            pass

    def next_object(self, column, path, blocks_each=1):
        """The next object of a shim's stream, or None while nothing is pushed."""
        wanted, parts = 4 * blocks_each, []
        queue = self.tasks[column, path]
        if sum(len(t[1]) - t[2] for t in queue) < wanted:
            return None
        for task in queue:
            take = task[1][task[2] : task[2] + wanted - len(parts)]
            parts.extend(task[3][piece] for piece in take)
            if task[3] is self.memory[1]:
                np.add.at(self.reading, take, -1)
            task[2] += len(take)
        return np.concatenate(parts).reshape(blocks_each, -1)

    def fetch(self, core, path):
        """The next object for a core: A objects go to a whole row, B objects to a whole column."""
        rows = 4 // self.columns
        key = (path, core.row if path == "A" else core.column)
        reader = core.column if path == "A" else core.row
        log = self.taken.setdefault(key, [0, deque(), [0] * 4])
        if log[2][reader] == log[0] + len(log[1]):
            if path == "A":
                found = self.next_object(core.row // rows, "A", rows)
                if found is None:
                    return None
                for offset, part in enumerate(found):
                    row = core.row // rows * rows + offset
                    self.taken.setdefault(("A", row), [0, deque(), [0] * 4])[1].append(part)
            else:
                found = self.next_object(core.column, "B")
                if found is None:
                    return None
                log[1].append(found[0])
        part = log[1][log[2][reader] - log[0]]
        log[2][reader] += 1
        readers = self.columns if path == "A" else 4
        while log[1] and min(log[2][:readers]) > log[0]:
            log[1].popleft()
            log[0] += 1
        return part.copy()

    def store(self, core, data):
        joined = self.joined[core.column]
        joined[core.row].append(data)
        if all(joined):
            pieces = np.concatenate([row.popleft() for row in joined]).reshape(-1, PIECE)
            self.results[core.column].extend(pieces)
            self.drain(core.column)

    def drain(self, column):
        """Write results as far as transfers are pushed for them."""
        for task in self.tasks[column, "C"]:
            while task[2] < len(task[1]) and self.results[column]:
                target = task[1][task[2]]
                if self.reading[target]:
                    raise Hazard(f"overwrites what is still read: {task[0]}")
                self.memory[1][target] = self.results[column].popleft()
                task[2] += 1


def walk(dma, granule=GRANULE):
    """The pieces of `granule` words that a transfer moves, in order."""
    sizes = (*dma.sizes[:3], dma.sizes[3] // granule)
    assert dma.sizes[3] % granule == 0 and dma.offset % granule == 0 and dma.element_bytes == 4
    steps = [s // granule for s in dma.strides[:3]] + [1]
    assert all(s % granule == 0 for s in dma.strides[:3])
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(sizes, steps)), indexing="ij")
    return (dma.offset // granule + sum(axes)).reshape(-1)


class Core:
    def __init__(self, machine, column, row):
        self.machine, self.column, self.row = machine, column, row
        self.held = {"A": deque(), "B": deque(), "C": deque()}
        self.state = {}
        self.names = {"row": row, "column": column}
        self.program = self.execute(CORE_PROGRAM)

    def step(self):
        """Run until an object is missing; whether anything happened."""
        moved = False
        while next(self.program):
            moved = True
        return moved

    def value(self, operand):
        if isinstance(operand, Word):
            return self.state["h"][operand.index] + operand.plus
        return self.names[operand] if operand not in ("acc", "hdr") else None

    def execute(self, statement):
        """Yields True after an object came, False while one is missing."""
        if isinstance(statement, Loop):
            trip = 0
            while statement.trips is None or trip < self.value(statement.trips):
                self.names[statement.variable] = trip
                for part in statement.body:
                    yield from self.execute(part)
                trip += 1
        elif isinstance(statement, Switch):
            (case,) = [c for c in statement.cases if c.value == self.value(statement.on)]
            for part in case.body:
                yield from self.execute(part)
        elif isinstance(statement, Acquire):
            for name in statement.names:
                found = np.zeros(4096, np.uint16)
                if statement.port != "C":
                    while (found := self.machine.fetch(self, statement.port)) is None:
                        yield False
                self.held[statement.port].append(found)
                self.names[name] = found
                yield True
        elif isinstance(statement, Release):
            for _ in range(statement.count):
                data = self.held[statement.port].popleft()
                if statement.port == "C":
                    self.machine.store(self, data)
        else:
            assert isinstance(statement, Call)
            operands = [self.value(o) for o in statement.operands]
            KERNELS[statement.kernel](self.state, *[o for o in operands if o is not None])


def a_matrix(block):
    return blocks.unpack_a(block.reshape(1, 1, -1), 64, 64)


def b_matrix(block):
    return from_bf16(block.reshape(8, 16, 8, 4).transpose(0, 2, 1, 3).reshape(64, 64))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def read_header(s, a):
    s["h"] = a[:64].view(np.int32).tolist()
    s["f"] = a[:64].view(np.float32)


def gemm_init(s):
    s["acc"] = np.zeros((64, 64), np.float32)


def gemm_step(s, a, b):
    left = s["p"] if "p" in s and s["h"][0] == 2 else a_matrix(a)
    s["acc"] = s["acc"] + left @ b_matrix(b)


def gemm_params(s, b):
    s["acc"] = s["acc"] + b[:128].view(np.float32)
    s["order"], flag = b[128:132].view(np.int32).tolist()
    if flag:
        s["acc"] = gelu(s["acc"]).astype(np.float32)


def gemm_residual(s, a, q, col):
    if q == col:
        s["acc"] = s["acc"] + a_matrix(a)


def gemm_finish(s, c, o, row):
    h = s["h"]
    first = 64 * (4 * (o % h[8]) + row)
    rows = np.arange(first, first + 64)
    out = np.where(((rows >= h[6]) & (rows < h[7]))[:, None], s["acc"], 0)
    pack = [
        lambda m: blocks.pack_a(m, 1, 1),
        lambda m: blocks.pack_keys(m, 1, 1),
        lambda m: blocks.pack_values(m, 1, 1),
    ]
    c[...] = pack[s["order"]](out).reshape(-1)


def attn_q(s, a, c, q, col):
    if q == col:
        c[...] = a


def attn_init(s, a1):
    s["acc"], s["l"], s["m"] = np.zeros((64, 64), np.float32), np.zeros(64), np.full(64, -1e9)


def attn_k(s, b, c, a0, a1, k):
    scores = a_matrix(c) @ b_matrix(b) * float(s["f"][10] + s["f"][11])
    valid = 64 * k + np.arange(64) < s["h"][9]
    m = np.maximum(s["m"], np.ceil(np.where(valid, scores, -1e9).max(1)))
    p = np.where(valid, np.exp2(np.minimum(scores - m[:, None], 0)), 0)
    s["p"] = round_bf16(p.astype(np.float32))
    rescale = np.exp2(s["m"] - m)
    s["l"], s["m"] = s["l"] * rescale + s["p"].sum(1), m
    s["acc"] = s["acc"] * rescale[:, None].astype(np.float32)


def attn_finish(s, a1, c):
    c[...] = blocks.pack_a(s["acc"] / s["l"][:, None], 1, 1).reshape(-1)


def row_part(b, row):
    return from_bf16(b.reshape(16, 8, 4, 8)[4 * row : 4 * row + 4].transpose(0, 2, 1, 3).reshape(16, 64))


def row_stats(s, b, k, row):
    part = row_part(b, row)
    s["row"] = part if k == 0 else np.hstack([s["row"], part])


def row_apply(s, b, c, a0, a1, g, j, row):
    kind, part = s["h"][5], row_part(b, row)
    piece = j
    column = 64 * (4 * g + j)
    if kind == 0:
        width = s["h"][12]
        x = s["row"][:, :width].astype(np.float64)
        scale = 1 / np.sqrt(x.var(1) + s["f"][10])
        span = slice(column, column + 64)
        out = (part - x.mean(1)[:, None]) * scale[:, None] * a0.view(np.float32)[span] + a1.view(np.float32)[
            span
        ]
    elif kind == 1:
        x = s["row"][:, : s["h"][9]].astype(np.float64)
        e = np.exp(part - x.max(1)[:, None]) / np.exp(x - x.max(1)[:, None]).sum(1)[:, None]
        out = np.where(column + np.arange(64) < s["h"][9], e, 0)
    elif kind == 2:
        out = gelu(part)
    else:
        piece = j // 2
        if j % 2 == 0:
            s["x"] = part
            return
        out = s["x"] + part
    bits = to_bf16(out.astype(np.float32)).reshape(4, 4, 8, 8).transpose(0, 2, 1, 3)
    c[1024 * piece : 1024 * (piece + 1)] = bits.reshape(-1)


KERNELS = {
    f.__name__: f
    for f in (
        read_header,
        gemm_init,
        gemm_step,
        gemm_params,
        gemm_residual,
        gemm_finish,
        attn_q,
        attn_init,
        attn_k,
        attn_finish,
        row_stats,
        row_apply,
    )
}
