"""Keeps XRT's objects from dying at the wrong moment.

- A run that is dropped before it completed aborts the process, so a run whose end we can't wait for is kept
  until it has ended, if need be for ever. It holds a hardware context for so long.
- After a fork both processes hold the same open device: if the child's copies were destroyed, the driver
  would close the parent's context. The child keeps all of them for ever and never uses them.
- At exit, Python's order of destruction is arbitrary, XRT wants runs, buffers, kernel, context, device:
  `chip` closes in that order, and what can't be closed is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

_kept: list[Any] = []
_going: list[tuple[Any, Callable[[], bool]]] = []


def keep_for_ever(thing: Any) -> None:
    """Never destroy `thing`, not even when the interpreter ends: one reference too many is taken."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    _kept.append(thing)


def keep_until(thing: Any, ended: Callable[[], bool]) -> None:
    """Keep `thing` until `release_ended` finds that it has ended, beyond the interpreter's end if it never does."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    _going.append((thing, ended))


def release_ended() -> None:
    """Let go of what has ended since it was to be kept. No lock: a destructor may call any of this at any time."""
    for item in list(_going):
        if item[1]():
            with contextlib.suppress(ValueError):  # another thread was faster
                _going.remove(item)
                ctypes.pythonapi.Py_DecRef(ctypes.py_object(item[0]))


def kept() -> int:
    """How many objects are given up now."""
    return len(_kept) + len(_going)
