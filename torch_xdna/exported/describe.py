"""How a program's inputs are written and its outputs read, as JSON and back: a closed set of small dataclasses."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from torch_xdna.lowering.buffers import Buffer, KeyValues, Matrix
from torch_xdna.lowering.host_data.conv_input import Column, ConvInput
from torch_xdna.lowering.host_data.fills import InputFill, OutputTake

_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (Buffer, Matrix, KeyValues, Column, ConvInput, InputFill, OutputTake)
}


def to_json(value: Any) -> Any:
    """Numbers, strings, None, tuples and the dataclasses above."""
    if is_dataclass(value) and type(value).__name__ in _KINDS:
        return {
            "is": type(value).__name__,
            **{field.name: to_json(getattr(value, field.name)) for field in fields(value)},
        }
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} is no part of a program's description")


def from_json(value: Any) -> Any:
    """Raises KeyError or TypeError for what `to_json` did not write."""
    if isinstance(value, dict):
        kind = _KINDS[value["is"]]
        return kind(**{name: from_json(item) for name, item in value.items() if name != "is"})
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    return value
