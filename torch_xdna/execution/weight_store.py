"""Packed weights: one copy for each set of parameters, thrown away when a parameter changes or dies.

A change is noticed before the next result:
- another tensor in the parameter's place, or another memory behind the same tensor (`p.data = q`,
  `torch.utils.swap_tensors`): by identity, address, shape and strides;
- a write (`load_state_dict`, `p.mul_(2)` under no_grad): by autograd's version counter;
- a write that bumps no counter (`p.data[3] = 1`, through numpy, to a tensor of inference_mode): by a hash of all
  that the parameters hold, at every call. That reads their memory once, 0.06 to 0.12 ms for each MB, in a thread of its
  own while the device works; if it finds a change, what the device made of the old weights is thrown away and the call
  is made again.

No weak reference is on a parameter itself, since torch.utils.swap_tensors refuses tensors with one: a parameter
is known by its id and its storage.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import xxhash
from torch import Tensor

AT_ONCE = 1 << 20  # bytes of parameters that are hashed before the device begins: a thread would cost as much
ATTEMPTS = 3  # calls made for weights that somebody goes on changing meanwhile

Result = TypeVar("Result")


class WeightStore:
    """What `pack` made of each set of parameters in use. Thread-safe; holds no parameter alive."""

    def __init__(self, pack: Callable[[Sequence[Tensor]], Any]) -> None:
        self._pack = pack
        self._entries: dict[tuple[int, ...], _Entry] = {}
        self._lock = threading.RLock()

    def get(self, params: Sequence[Tensor]) -> Any:
        """The packed form of these parameters as they are now."""
        return self.use(params, lambda packed: packed)

    def use(self, params: Sequence[Tensor], run: Callable[[Any], Result]) -> Result:
        """What `run` makes of the packed form of these parameters as they are now; it may run more than once."""
        for _ in range(ATTEMPTS):
            entry = self._entry(params)
            if entry.size <= AT_ONCE:  # compared already
                return run(entry.packed)
            digest = _Beside(params)
            try:
                result = run(entry.packed)
            finally:
                found = digest.wait()
            if found == entry.digest:
                break
            with self._lock:
                if self._entries.get(key := _key(params)) is entry:
                    del self._entries[key]
        return result

    def _entry(self, params: Sequence[Tensor]) -> _Entry:
        key = _key(params)
        entry = self._entries.get(key)
        if entry is not None and entry.is_current(params):
            return entry
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.is_current(params):
                return entry
            self._entries.pop(key, None)  # before packing: old and new need not fit in memory together
            del entry
            made = self._entries[key] = self._make(key, params)
            return made

    def _make(self, key: tuple[int, ...], params: Sequence[Tensor]) -> _Entry:
        store = weakref.ref(self)

        def forget(_: object) -> None:
            if (alive := store()) is not None:
                alive._entries.pop(key, None)

        # State and digest are taken before the contents are packed: a write in between shows as a change at the
        # next call.
        state, digest, size = (
            _state(params),
            _digest(params),
            sum(p.numel() * p.element_size() for p in params),
        )
        packed = self._pack([p.detach().resolve_conj().resolve_neg() for p in params])
        return _Entry(packed, tuple(weakref.ref(_owner(p), forget) for p in params), state, digest, size)

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
    digest: bytes
    size: int  # bytes of the parameters

    def is_current(self, params: Sequence[Tensor]) -> bool:
        return (
            all(ref() is _owner(p) for ref, p in zip(self.owners, params))
            and _state(params) == self.state
            and (self.size > AT_ONCE or _digest(params) == self.digest)
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


def _key(params: Sequence[Tensor]) -> tuple[int, ...]:
    return tuple(map(id, params))


class _Beside:
    """The digest, computed in a thread; hashing holds no lock of the interpreter."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self._params, self._found = params, b""
        self._thread = threading.Thread(target=self._work, name="xdna-weights", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        self._found = _digest(self._params)

    def wait(self) -> bytes:
        self._thread.join()
        return self._found


def _digest(params: Sequence[Tensor]) -> bytes:
    """A hash of the parameters' elements as bits, since NaN must equal itself."""
    found = xxhash.xxh3_128()
    for param in params:
        found.update(_bits(param).data)
    return found.digest()


def _bits(param: Tensor) -> np.ndarray:
    """The elements' bytes: the memory itself, a copy only where others' elements lie between them. By address, since a
    look at memory must not depend on the modes of torch that the caller is in."""
    if not param.numel():
        return np.empty(0, np.uint8)
    size, strides = param.element_size(), param.stride()
    extent = size * (1 + sum((n - 1) * s for n, s in zip(param.shape, strides)))
    memory = np.frombuffer(memoryview((ctypes.c_byte * extent).from_address(param.data_ptr())), np.uint8)
    if extent <= param.numel() * size:
        return memory
    apart = np.ndarray(tuple(param.shape), f"V{size}", memory, strides=[s * size for s in strides])
    return np.ascontiguousarray(apart).reshape(-1).view(np.uint8)
