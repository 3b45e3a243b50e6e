"""Threads that each run torch's kernels on one core, and one function that hands them chunks.

Why not torch's own threads inside each kernel: a layer is hundreds of kernel calls, each of which would start and
join a team. With other processes on both cores every join waits for the slower one (attention alone then took 3.3
to 12 times as long as torch's single flash kernel, with these threads 1.6 times). Python's lock is released inside
kernels, where most of the time goes.
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
    """A pool for this process (a fork has no threads of its parent) and torch's present number of threads."""
    pool = ThreadPoolExecutor(threads, "xdna-emulator", _use_one_core)
    ready = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(ready.wait)
    ready.wait()
    # set_num_threads acts on the calling thread, but also on threads that start later: put it back.
    torch.set_num_threads(threads)
    return pool


def _use_one_core() -> None:
    # A thread's first use of torch takes over the process's number of threads, also over what was set in the thread
    # before: asking for the number is such a use.
    torch.get_num_threads()
    torch.set_num_threads(1)
