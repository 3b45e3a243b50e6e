"""The options of `torch.compile(..., backend="xdna", options={...})`: fields and defaults in one place."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch_xdna.devices import names
from torch_xdna.errors import SettingsError
from torch_xdna.lowering.streams.split import SPLITS


@dataclass(frozen=True)
class Settings:
    """What a user can choose.

    device: where regions run. `auto` is the NPU if it is usable here, else the emulator with one warning that
        says why; `npu`, `emulator` and `array` (the simulator of the array) are taken at their word.
    fallback: what happens to an op that the device does not take. `eager` runs it on the CPU, with one
        warning per distinct reason; `error` makes it a FallbackError that names the op. What only gives attention
        weights that the caller asked for beside the result runs eager in either case, without a word.
    columns: how many columns of the array to use: 1, 2 or 4. More is faster, fewer leaves columns to others.
    overlay: path of an xclbin to configure the array with; None takes the installed one.
    iterated: False writes iterated descriptors out as more transfers, a way out if they fail on a machine (the
        selftest tries them alone). The same bits, a longer instruction stream.
    split: "layer" sends each layer of a region as a dispatch of its own, "op" each op, a way out if a machine fails
        with long instruction streams or many tokens. The same bits; every dispatch costs about 0.2 ms (modelled).
        None: one dispatch, unless it is modelled to take longer than the driver lets a run take.
    """

    device: str = "auto"
    fallback: str = "eager"
    columns: int = 4
    overlay: str | None = None
    iterated: bool = True
    split: str | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any] | None = None) -> Settings:
        """Check a user's options; raises SettingsError naming what is valid and the nearest match."""
        if options is None:
            return cls()
        if not isinstance(options, Mapping):
            raise SettingsError(
                f"options is {type(options).__name__}; it must be a dict, as {{'device': 'emulator'}}"
            )
        known = [f.name for f in fields(cls)]
        for key in options:
            if key not in known:
                raise SettingsError(
                    f"unknown option '{key}'{_nearest(key, known)}; valid options: {', '.join(known)}"
                )
        settings = cls(**options)
        for key, valid in {"device": names(), **_VALID}.items():
            value = getattr(settings, key)
            if not any(value == v and type(value) is type(v) for v in valid):
                shown = ", ".join(map(repr, valid))
                raise SettingsError(
                    f"option '{key}' is {value!r}{_nearest(value, valid)}; valid values: {shown}"
                )
        if settings.overlay is not None and not (isinstance(settings.overlay, str) and settings.overlay):
            raise SettingsError(
                f"option 'overlay' is {settings.overlay!r}; it must be the path of an xclbin as str, or None"
            )
        return settings


_VALID: dict[str, tuple] = {
    "fallback": ("eager", "error"),
    "columns": (1, 2, 4),
    "iterated": (True, False),
    "split": (None, *SPLITS),
}


def refuse_mode(mode: object) -> None:
    """`torch.compile(mode=...)` selects presets of Inductor, which this backend does not have."""
    if mode is not None:
        names = ", ".join(f.name for f in fields(Settings))
        raise SettingsError(f"mode={mode!r} is Inductor's; backend 'xdna' takes options={{...}} with {names}")


def _nearest(key: object, valid: Any) -> str:
    by_text = {str(v): v for v in valid}
    match = difflib.get_close_matches(str(key), by_text, n=1, cutoff=0.5)
    return f" (did you mean {by_text[match[0]]!r}?)" if match else ""
