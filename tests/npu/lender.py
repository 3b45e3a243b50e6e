"""Inside the sandbox: lends the real pyxrt, object by object, to a process that has torch (`borrowed_xrt`).

One connection, one question at a time: an attribute, a call, a comparison, an object as int. What is no plain
value stays here and travels as its number; a buffer's memory travels as its place in the stand-in's memory
file, which the borrower maps too.
"""

from __future__ import annotations

import ctypes
import os
from multiprocessing.connection import Client
from typing import Any

import pyxrt
import stack
from sandbox import inside

PLAIN = (bool, int, float, str, type(None))


def serve(address: str) -> None:
    """Answer until the borrower hangs up. The array simulator plays the NPU."""
    stack.simulate(4)
    objects: dict[int, Any] = {0: pyxrt, 1: inside}
    with Client(address) as borrower:
        while True:
            try:
                dropped, verb, number, rest = borrower.recv()
            except EOFError:
                break
            for old in dropped:
                del objects[old]
            try:
                answer = _told(_asked(objects, verb, number, rest), objects)
            except Exception as error:
                answer = ("raised", (type(error).__name__, str(error)))
            borrower.send(answer)
    os._exit(0)  # a run that hangs for ever would abort an orderly end


def _asked(objects: dict[int, Any], verb: str, number: int, rest: tuple) -> Any:
    thing = objects[number]
    if verb == "get":
        return getattr(thing, *rest)
    if verb == "call":
        return thing(*(objects[value] if borrowed else value for borrowed, value in rest))
    if verb == "equal":
        return thing == objects[rest[0]]
    assert verb == "int", verb
    return int(thing)


def _told(value: Any, objects: dict[int, Any]) -> tuple[str, Any]:
    if type(value) in PLAIN:
        return "plain", value
    if isinstance(value, memoryview):
        return "memory", _place(value)
    number = max(objects) + 1
    objects[number] = value
    return "object", number


def _place(view: memoryview) -> tuple[str, int, int]:
    """A buffer's bytes as (file, offset, size)."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    with open("/proc/self/maps") as maps:
        for line in maps:
            addresses, _, offset, *_ = line.split()
            start, end = (int(n, 16) for n in addresses.split("-"))
            if start <= address < end:
                assert "npu-standin" in line, f"no memory of the stand-in: {line}"
                return _memory_file(), int(offset, 16) + address - start, view.nbytes
    raise AssertionError("the buffer is not mapped")


def _memory_file() -> str:
    folder = f"/proc/{os.getpid()}/fd"
    files = (f"{folder}/{fd}" for fd in os.listdir(folder))
    return next(file for file in files if "npu-standin" in os.readlink(file))
