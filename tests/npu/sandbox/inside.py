"""Inside the sandbox's interpreter: knobs and counters of the stand-in, and the array that a test plays.

`python -m sandbox.inside module:function '{"argument": 1}'` prints the function's result as JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import struct
import sys
from collections.abc import Callable

import numpy as np

_driver = ctypes.CDLL(os.environ["NPU_STANDIN_LIBRARY"])
_driver.standin_get.restype = ctypes.c_long
_driver.standin_memory.restype = ctypes.c_void_p
_driver.standin_memory.argtypes = (ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint64))
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32), ctypes.c_uint32)
_kept: list[object] = []

COMPLETED, ERROR, ABORT, TIMEOUT = 4, 5, 6, 8


def set_knob(name: str, value: int) -> None:
    assert _driver.standin_set(name.encode(), ctypes.c_long(value)) >= 0, name


def get(name: str) -> int:
    value = _driver.standin_get(name.encode())
    assert value >= 0 or name == "HANG", name
    return value


def memory(address: int, dtype: type = np.uint8, count: int | None = None) -> np.ndarray:
    """The array's view of a buffer from a device address on: to its end, or `count` elements."""
    left = ctypes.c_uint64()
    pointer = _driver.standin_memory(address, ctypes.byref(left))
    assert pointer, f"no buffer holds the device address {address:#x}"
    size = left.value if count is None else count * np.dtype(dtype).itemsize
    assert size <= left.value, f"{size} bytes from {address:#x}, but the buffer ends after {left.value}"
    return np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), dtype)


def play(array: Callable[[np.ndarray, list[np.ndarray]], int | None]) -> None:
    """Let `array(words, [arg 0 bytes, arg 1 bytes])` execute every run; it returns an end state or None
    (COMPLETED).

    A packet of one run holds: header, mask of compute units, opcode (u64), instruction address (u64), number
    of instruction words (u32), then one address (u64) per buffer argument.
    """

    def execute(_context: int, packet: ctypes.Array, words: int) -> int:
        try:
            raw = np.ctypeslib.as_array(packet, (words,)).tobytes()
            opcode, code, n_words = struct.unpack_from("<QQI", raw, 8)
            arguments = struct.unpack_from("<QQ", raw, 28)
            assert opcode == 3, f"opcode {opcode}"
            state = array(memory(code, np.uint32, n_words).copy(), [memory(a) for a in arguments])
            return COMPLETED if state is None else state
        except BaseException as error:
            print(f"the array refuses: {error!r}", file=sys.stderr)
            return ERROR

    _kept.append(_CALLBACK(execute))
    _driver.standin_callback(_kept[-1])


def main() -> None:
    from torch_xdna.devices.npu import overlay

    if "NPU_STANDIN_FINGERPRINT" in os.environ:  # the version that the tests' overlay claims to be
        overlay.fingerprint = lambda *_: os.environ["NPU_STANDIN_FINGERPRINT"]
    module, function = sys.argv[1].split(":")
    result = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    sys.stdout.write("RESULT " + json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # run as the imported module, so that functions and this file share one copy of its state
    importlib.import_module("sandbox.inside").main()
