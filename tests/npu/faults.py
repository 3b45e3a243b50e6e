"""Inside the sandbox: what the runtime does on a bad day. Each function is one process; `test_faults`
judges."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from typing import Any

import numpy as np
from sandbox import inside
from toy import MARKER, Session, Toy, array, outcome, slowly

from torch_xdna.devices import npu
from torch_xdna.devices.npu import lifetime
from torch_xdna.devices.npu.errors import NpuError


def open_only(xclbin: str, **options: Any) -> Any:
    return outcome(lambda: npu.runtime(xclbin, **{"patience": 0.2, **options}).generation)


def injected(xclbin: str, set: dict[str, int], watchdog: dict[str, int] | None = None) -> dict:
    """A good run, a knob, a run, a good run."""
    session = Session(xclbin)
    first = session.run()
    for knob, value in {**(watchdog or {}), **set}.items():
        inside.set_knob(knob, value)
    started = time.monotonic()
    second = outcome(lambda: session.run(5.0))
    seconds = time.monotonic() - started
    third = outcome(lambda: session.run(6.0))
    return {
        "first": first,
        "second": second,
        "third": third,
        "seconds": seconds,
        "contexts": inside.get("CONTEXTS_MADE"),
        "closed": inside.get("CONTEXTS_CLOSED"),
        "failed": session.program.stats.failed_runs,
        "overlay_changes": session.program.stats.overlay_changes,
        "kept": lifetime.kept(),
    }


def off_and_on(xclbin: str) -> dict:
    """Runs fail until the NPU is off; then the knob is gone but the NPU stays off until it is asked for
    again."""
    session = Session(xclbin)
    inside.set_knob("FAIL", 2)
    failed = outcome(session.run)
    runs = inside.get("RUNS")
    still_off = outcome(session.run)
    asked_again = outcome(lambda: npu.runtime(xclbin).generation)
    quiet = inside.get("RUNS") == runs
    npu.reset()
    return {
        "failed": failed,
        "off": still_off,
        "opened": asked_again,
        "quiet": quiet,
        "on": outcome(session.run),
    }


def failing_for_long(xclbin: str) -> dict:
    """More failures than the chip has contexts, by somebody who keeps every exception (a debugger, pytest)."""
    session = Session(xclbin)
    inside.set_knob("FAIL", -1)
    kept, said, most = [], set(), 0
    for _ in range(8):
        npu.reset()
        try:
            session.run()
        except NpuError as error:
            kept.append(error)
            said.add(type(error).__name__)
        most = max(most, inside.get("CONTEXTS_MADE") - inside.get("CONTEXTS_CLOSED"))
    inside.set_knob("FAIL", 0)
    npu.reset()
    return {"kept": len(kept), "said": sorted(said), "open": most, "after": outcome(session.run)}


def refusing_array(xclbin: str) -> Any:
    """Nothing of a failed run reaches the user, even when the array wrote half of it."""

    def half(words: np.ndarray, arguments: list[np.ndarray]) -> int:
        array(words, arguments)
        return inside.ERROR

    return outcome(Session(xclbin, plays=half).run)


def half_written(xclbin: str) -> Any:
    """COMPLETED, but the second of two blocks was never written."""

    def half(words: np.ndarray, arguments: list[np.ndarray]) -> None:
        before = arguments[1][-8192:].copy()
        array(words, arguments)
        arguments[1][-8192:] = before

    return outcome(Session(xclbin, plays=half).run)


def split_program(xclbin: str, failing: int, times: int) -> dict:
    """A program of three dispatches, of which the one with number `failing` fails `times` times."""
    order: list[int] = []
    left = times

    def play(words: np.ndarray, arguments: list[np.ndarray]) -> int | None:
        nonlocal left
        order.append(int(words[1]))
        if words[1] == failing and left:
            left -= 1
            return inside.ERROR
        return array(np.full_like(words, MARKER), arguments)

    session = Session(xclbin, plays=play)
    toy = Toy(2, parts=3)
    toy.dispatches = tuple(np.array([MARKER, part, MARKER], np.uint32) for part in range(3))
    loaded = npu.load(session.npu, toy)
    found = outcome(lambda: float(loaded.run([toy.clip(3.0)], session.weights)[0][0][0, 0]))
    return {"found": found, "order": order, "dispatches": loaded.stats.dispatches}


def damaged_weights(xclbin: str) -> Any:
    """A failing run scribbles over the weights: they must not be used for the retry."""

    def scribble(words: np.ndarray, arguments: list[np.ndarray]) -> int:
        arguments[0][100:200] ^= 0x55
        return inside.ERROR

    return outcome(Session(xclbin, plays=scribble).run)


def heap_full(xclbin: str) -> dict:
    """More programs than the instruction heap holds, used in turns; then one that never fits."""
    session = Session(xclbin)
    toys = [npu.load(session.npu, Toy(1, words=250_000)) for _ in range(6)]  # 1 MB each
    weights = session.program.upload(session.toy.pack_weights(1.0))
    found = []
    for _ in range(2):
        for loaded in toys:
            ((output,),) = loaded.run([loaded.program.clip(2.0)], weights)
            found.append(float(output[0, 0]))
    large = npu.load(session.npu, Toy(1, words=2_000_000))
    return {
        "found": found,
        "large": outcome(lambda: large.run([large.program.clip(2.0)], weights)),
        "after": session.run(),
        "contexts": inside.get("CONTEXTS_MADE"),
    }


def allocation(xclbin: str) -> dict:
    session = Session(xclbin)
    inside.set_knob("ALLOC_FAILS", -1)
    failed = outcome(session.run)
    inside.set_knob("ALLOC_FAILS", 0)
    return {"failed": failed, "after": session.run(), "contexts": inside.get("CONTEXTS_MADE")}


def threads(xclbin: str, count: int = 5, rounds: int = 6) -> dict:
    """Threads share programs, and a thread that computes keeps going while others wait for the NPU."""
    session = Session(xclbin, plays=slowly(0.004))
    wrong: list[Any] = []
    ticks = 0
    running = threading.Event()

    def use(n: int) -> None:
        for i in range(rounds):
            values = [float(n + k) for k in range(1 + i % 3)]
            found = outcome(lambda values=values: session.batch(values))
            if found != [2 * v + 1 for v in values]:
                wrong.append(found)

    def tick() -> None:
        nonlocal ticks
        while not running.is_set():
            time.sleep(0.001)
            ticks += 1

    ticker = threading.Thread(target=tick)
    ticker.start()
    users = [threading.Thread(target=use, args=(n,)) for n in range(count)]
    started = time.monotonic()
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    seconds = time.monotonic() - started
    running.set()
    ticker.join()
    return {"wrong": wrong, "ticks_per_s": ticks / seconds, "contexts": inside.get("CONTEXTS_MADE")}


def threads_and_failures(xclbin: str) -> dict:
    """Runs of two threads while some runs fail: each result is right or a clear error."""
    session = Session(xclbin, plays=slowly(0.002))
    results: list[Any] = []

    def use(n: int) -> None:
        for _ in range(8):
            results.append([n, outcome(lambda: session.run(float(n)))])

    users = [threading.Thread(target=use, args=(n,)) for n in (1, 2)]
    for thread in users:
        thread.start()
    for _ in range(4):
        time.sleep(0.02)
        inside.set_knob("FAIL", 1)
    for thread in users:
        thread.join()
    return {
        "results": results,
        "contexts": inside.get("CONTEXTS_MADE"),
        "closed": inside.get("CONTEXTS_CLOSED"),
    }


def hear_interrupts() -> None:
    """As in a terminal: a shell's background job, and so a test-suite in one, ignores SIGINT by inheritance."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted(xclbin: str) -> dict:
    """Ctrl-C in the middle of a run: KeyboardInterrupt at once, and the next run is right."""
    session = Session(xclbin, plays=slowly(0.4), run_timeout=5.0)
    hear_interrupts()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    try:
        session.batch([1.0, 2.0, 3.0])
        raised = "nothing"
    except KeyboardInterrupt:
        raised = "KeyboardInterrupt"
    seconds = time.monotonic() - started
    gc.collect()
    after = session.run(7.0)
    return {"raised": raised, "seconds": seconds, "after": after, "contexts": inside.get("CONTEXTS_MADE")}


def handled_signal(xclbin: str) -> dict:
    """A signal handler that returns does not disturb a run."""
    session = Session(xclbin, plays=slowly(0.2))
    seen: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    return {"value": session.run(), "seen": len(seen)}


def dropped_mid_run(xclbin: str) -> dict:
    """The program is deleted while its interrupted run hangs; then the process ends. Neither may abort."""
    session = Session(xclbin)
    session.run()
    inside.set_knob("HANG", 1)
    hear_interrupts()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with contextlib.suppress(KeyboardInterrupt):
        session.run()
    del session.program
    gc.collect()
    return {"kept": lifetime.kept()}


def ended_late(xclbin: str) -> dict:
    """The program is deleted while its run hangs; the driver's watchdog ends that run some time later."""
    session = Session(xclbin)
    session.run()
    inside.set_knob("HANG", 1)
    hear_interrupts()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with contextlib.suppress(KeyboardInterrupt):
        session.run()
    del session.program
    gc.collect()
    during = lifetime.kept()
    inside.set_knob("WATCHDOG_MS", 20)
    time.sleep(0.3)
    session.program = npu.load(session.npu, session.toy)
    return {"during": during, "value": session.run(), "after": lifetime.kept()}


def forked(xclbin: str) -> dict:
    """The child gets a sentence and ends in peace; the parent's context survives the child."""
    session = Session(xclbin)
    session.run()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = outcome(session.run)
        del session
        gc.collect()
        os.write(write, repr(answer).encode())
        import sys

        sys.exit(0)  # with everything Python does at exit
    os.close(write)
    said = os.read(read, 4096).decode()
    _, status = os.waitpid(pid, 0)
    return {"child": said, "status": status, "after": session.run(9.0)}


def copies(xclbin: str) -> dict:
    import copy
    import pickle

    session = Session(xclbin)
    twin = copy.deepcopy(session.program)
    ((output,),) = twin.run([session.toy.clip(4.0)], session.weights)
    return {"copy": float(output[0, 0]), "pickle": outcome(lambda: pickle.dumps(session.program))}


def shares_one_context(xclbin: str) -> dict:
    """Several models (weights) and shapes (programs) in one process."""
    session = Session(xclbin)
    other = npu.load(session.npu, Toy(3))
    fives = other.upload(other.program.pack_weights(5.0))
    twice = npu.runtime(xclbin)
    found = []
    for value in (1.0, 2.0):
        ((output,),) = other.run([other.program.clip(value)], fives)
        found += [session.run(value), float(output[0, 0])]
    return {"found": found, "same": twice is session.npu, "contexts": inside.get("CONTEXTS_MADE")}


def hold(xclbin: str, seconds: float, value: float = 3.0) -> dict:
    """Use the NPU for some time, as one of several processes."""
    session = Session(xclbin, plays=slowly(0.005), patience=15.0)
    right = True
    end = time.monotonic() + seconds
    runs = 0
    while time.monotonic() < end:
        right = right and session.run(value) == 2 * value + 1
        runs += 1
    return {"right": right, "runs": runs}


def count_everything(xclbin: str) -> dict:
    """What one call costs, by the driver's count and by ours."""
    session = Session(xclbin)
    session.run()
    before, runs, waits = session.program.stats.copy(), inside.get("RUNS"), inside.get("WAITS")
    session.run()
    spent = session.program.stats - before
    return {
        "dispatches": spent.dispatches,
        "overlay_changes": spent.overlay_changes,
        "to": spent.bytes_to_device,
        "from": spent.bytes_from_device,
        "runs": inside.get("RUNS") - runs,
        "waits": inside.get("WAITS") - waits,
        "size": session.toy.size,
    }


def slow_and_quick_waits(xclbin: str) -> dict:
    """How late the polling notices the end of a run, and what it costs the CPU."""
    session = Session(xclbin)
    out = {}
    for micros in (0, 5_000, 50_000):
        inside.set_knob("DELAY_US", micros)
        for _ in range(2):
            session.run()
        cpu, wall = time.thread_time(), time.monotonic()
        for _ in range(5):
            session.run()
        out[micros] = {"cpu_ms": (time.thread_time() - cpu) * 200, "wall_ms": (time.monotonic() - wall) * 200}
    return out
