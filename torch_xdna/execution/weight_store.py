"""Packed weights: one copy for each set of parameters, thrown away when a parameter changes or dies.

A change is noticed before the next result:
- another tensor in the parameter's place, or another memory behind the same tensor (`p.data = q`,
  `torch.utils.swap_tensors`): by identity, address, shape and strides;
- a write (`load_state_dict`, `p.mul_(2)` under no_grad): by autograd's version counter;
- a write to a tensor made under inference_mode, which has no version counter: by comparing all of it with a
  copy, which costs as much memory again and about 0.3 ms for each MB at every call;
- a write to any other tensor that bumps no counter (`p.data.mul_(2)`, through numpy): by comparing 64 elements
  of each weight. That sees every update of a whole tensor; one that changes a few elements behind autograd's
  back may go unseen.

No weak reference is on a parameter itself, since torch.utils.swap_tensors refuses tensors with one: a parameter
is known by its id and its storage.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SAMPLES = 64


class WeightStore:
    """What `pack` made of each set of parameters in use. Thread-safe; holds no parameter alive."""

    def __init__(self, pack: Callable[[Sequence[Tensor]], Any]) -> None:
        self._pack = pack
        self._entries: dict[tuple[int, ...], _Entry] = {}
        self._lock = threading.RLock()

    def get(self, params: Sequence[Tensor]) -> Any:
        """The packed form of these parameters as they are now."""
        key = tuple(map(id, params))
        entry = self._entries.get(key)
        if entry is not None and entry.is_current(params):
            return entry.packed
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.is_current(params):
                return entry.packed
            self._entries.pop(key, None)  # before packing: old and new need not fit in memory together
            del entry
            made = self._entries[key] = self._make(key, params)
            return made.packed

    def _make(self, key: tuple[int, ...], params: Sequence[Tensor]) -> _Entry:
        store = weakref.ref(self)

        def forget(_: object) -> None:
            if (alive := store()) is not None:
                alive._entries.pop(key, None)

        # The state is taken before the contents are read: a write in between shows as a change at the next
        # call.
        state = _state(params)
        contents = _Contents(params)
        packed = self._pack([p.detach().resolve_conj().resolve_neg() for p in params])
        return _Entry(packed, tuple(weakref.ref(_owner(p), forget) for p in params), state, contents)

    def clear(self) -> None:
        """Forget everything; a call in another thread keeps what it has and finishes."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True)
class _Entry:
    packed: Any
    owners: tuple[weakref.ref, ...]
    state: tuple
    contents: _Contents

    def is_current(self, params: Sequence[Tensor]) -> bool:
        return (
            all(ref() is _owner(p) for ref, p in zip(self.owners, params))
            and _state(params) == self.state
            and self.contents.unchanged()  # after the two others, which say that this memory is there
        )


def _owner(param: Tensor) -> Any:
    """What lives as long as a parameter, and may be referred to weakly.

    Its storage; but a tensor that is no parameter may be one of many short-lived views of a lasting storage.
    """
    storage = param.untyped_storage()
    whole = storage.nbytes() == param.numel() * param.element_size()
    return storage if isinstance(param, torch.nn.Parameter) or (whole and not param._is_view()) else param


def _state(params: Sequence[Tensor]) -> tuple:
    return tuple(
        (p.data_ptr(), _version(p), p.shape, p.stride(), p.dtype, p.is_neg(), p.is_conj()) for p in params
    )


def _version(param: Tensor) -> int:
    return -1 if param.is_inference() else param._version


class _Contents:
    """What the parameters' memory held: all of a tensor without version counter, some elements of the others.

    As bits, since NaN must equal itself. In numpy, whose calls cost a fraction of torch's on so few elements,
    and by address: it must not keep the memory alive.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self._samples: dict[np.dtype, list[np.ndarray]] = {}  # those of one dtype are compared in one go
        self._whole: list[tuple[np.ndarray, np.ndarray]] = []
        for param in params:
            memory = _memory(param)
            if param.is_inference():
                self._whole.append((memory, memory.copy()))
            else:
                some = memory[:: max(1, len(memory) // _SAMPLES)][:_SAMPLES]
                self._samples.setdefault(some.dtype, []).append(some)
        self._expected = self._gather()

    def unchanged(self) -> bool:
        return self._gather() == self._expected and all(np.array_equal(a, b) for a, b in self._whole)

    def _gather(self) -> list[bytes]:
        return [np.concatenate(of_one_dtype).tobytes() for of_one_dtype in self._samples.values()]


def _memory(param: Tensor) -> np.ndarray:
    """The memory from a tensor's first element to its last, as integers of the elements' size (at most 8)."""
    extent = 1 + sum((n - 1) * s for n, s in zip(param.shape, param.stride())) if param.numel() else 0
    size = param.element_size()
    if extent == 0:
        return np.empty(0, f"i{min(size, 8)}")
    memory = (ctypes.c_byte * (extent * size)).from_address(param.data_ptr())
    return np.frombuffer(memoryview(memory), f"i{min(size, 8)}")
