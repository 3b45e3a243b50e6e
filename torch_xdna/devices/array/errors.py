"""What the simulated array refuses: everything that would hang or corrupt real hardware."""

from __future__ import annotations

from torch_xdna.errors import XdnaError


class HardwareFault(XdnaError):
    """The program does something that the hardware can't do or that depends on luck.

    `kind` is a short stable word for tests and tables ("queue", "descriptor", "deadlock", ...); the message
    names column, channel, descriptor and command.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(f"{kind}: {message}")
        self.kind = kind
