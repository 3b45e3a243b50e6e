"""Threads that each run torch's kernels on one core, and one function that hands them chunks.

Why not torch's own threads inside each kernel: an encoder layer is about 80 kernel calls per chunk, each of which
would start and join a team. On a busy machine every join waits for the slowest core (measured with other processes
on both cores: attention took 3.5 to 7 times as long as with these threads), and no chunk would stay in one core's
cache from one kernel to the next. Python's lock is no hindrance: torch releases it inside kernels, which take most
of the time.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

_lock = threading.Lock()


def run_all(tasks: Iterable[Callable[[], None]]) -> None:
    """Run the tasks, several at a time if torch may use several threads; return when all are done.

    Raises what the first failed task (in their order) raised, after all have stopped.
    """
    with _lock:  # two threads must not build the same pool
        pool = _pool(os.getpid(), torch.get_num_threads())
    futures = [pool.submit(_without_grad, task) for task in tasks]
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error


def _without_grad(task: Callable[[], None]) -> None:
    with torch.no_grad():
        task()


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """The pool of this process (a fork has no threads of its parent) for torch's present number of threads."""
    pool = ThreadPoolExecutor(threads, "xdna-emulator", _use_one_core)
    ready = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(ready.wait)
    ready.wait()
    # set_num_threads acts on the calling thread, but is also what threads started later begin with: put it back.
    torch.set_num_threads(threads)
    return pool


def _use_one_core() -> None:
    torch.set_num_threads(1)
