"""Packed weights: one copy for each set of parameters, thrown away when a parameter changes or dies.

A change is noticed before the next result:
- another tensor in the parameter's place: by identity, held weakly;
- another memory behind the same tensor (`p.data = q`): by address, shape and strides;
- a write (`load_state_dict`, `p.mul_(2)` under no_grad): by autograd's version counter;
- a write that bumps no counter (`p.data.mul_(2)`, through numpy, or a parameter made under inference_mode):
  by comparing 64 elements of each weight. That sees every update of a whole tensor; one that changes a few
  elements behind autograd's back may go unseen.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SAMPLES = 64
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an element


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
        samples = _samples(params)
        expected = _gather(samples)
        packed = self._pack([p.detach() for p in params])
        return _Entry(packed, tuple(weakref.ref(p, forget) for p in params), state, samples, expected)

    def clear(self) -> None:
        """Forget everything; a call in another thread keeps what it has and finishes."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True)
class _Entry:
    packed: Any
    params: tuple[weakref.ref, ...]
    state: tuple
    samples: list[list[np.ndarray]]
    expected: list[bytes]

    def is_current(self, params: Sequence[Tensor]) -> bool:
        return (
            all(ref() is p for ref, p in zip(self.params, params))
            and _state(params) == self.state
            and _gather(self.samples) == self.expected
        )


def _state(params: Sequence[Tensor]) -> tuple:
    return tuple((p.data_ptr(), _version(p), p.shape, p.stride()) for p in params)


def _version(param: Tensor) -> int:
    return -1 if param.is_inference() else param._version


def _samples(params: Sequence[Tensor]) -> list[list[np.ndarray]]:
    """Elements of each parameter, spread over it, as views of its memory; those of one size in one list.

    As bits, since NaN must equal itself, and in numpy, whose calls cost a fraction of torch's on so few elements.
    """
    by_size: dict[int, list[np.ndarray]] = {}
    for param in params:
        flat = param.detach()
        flat = flat.view(-1) if flat.is_contiguous() else flat.as_strided((_extent(flat),), (1,))
        flat = flat[:: max(1, flat.numel() // _SAMPLES)][:_SAMPLES]
        by_size.setdefault(flat.element_size(), []).append(flat.view(_BITS[flat.element_size()]).numpy())
    return list(by_size.values())


def _extent(param: Tensor) -> int:
    return 1 + sum((n - 1) * s for n, s in zip(param.shape, param.stride()))


def _gather(samples: Sequence[Sequence[np.ndarray]]) -> list[bytes]:
    """What the samples hold now."""
    return [np.concatenate(of_one_size).tobytes() for of_one_size in samples]
