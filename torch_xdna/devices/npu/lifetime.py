"""Keeps XRT's objects from dying at the wrong moment.

- A run that is dropped before it completed aborts the process, so a run whose end we can't wait for is kept
  for ever.
- After a fork both processes hold the same open device: if the child's copies were destroyed, the driver
  would close the parent's context. The child keeps all of them for ever and never uses them.
- At exit, Python's order of destruction is arbitrary, XRT wants runs, buffers, kernel, context, device:
  `process` closes in that order, and what can't be closed is kept.
"""

from __future__ import annotations

import ctypes
from typing import Any

_kept: list[Any] = []


def keep_for_ever(thing: Any) -> None:
    """Never destroy `thing`, not even when the interpreter ends: one reference too many is taken."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    _kept.append(thing)


def kept() -> int:
    """How many objects were given up so far."""
    return len(_kept)
