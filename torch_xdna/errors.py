"""The errors that a user can meet, each one sentence: what, with which shape, why, and the remedy.

The command line prints them without a traceback and exits with 2; the backend raises them as they are.
"""

from __future__ import annotations


class XdnaError(RuntimeError):
    """Something the user asked for can't be done; the message says what, why and what to do instead."""


class SettingsError(XdnaError, ValueError):
    """An option of `torch.compile(..., backend="xdna", options={...})` is unknown or has a wrong value."""


class FallbackError(XdnaError):
    """`fallback="error"` was asked for and an operation would have run eager on the CPU."""


class DeviceError(XdnaError):
    """A device was asked for that is not usable here."""
