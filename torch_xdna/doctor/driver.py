"""Asks the amdxdna kernel driver about itself, without XRT. Only queries; nothing is allocated or changed.

Numbers and structures from the kernel's header drm/amdxdna_accel.h (6.14 and later); a query that an older
driver does not know gives None.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from dataclasses import dataclass

_COMMAND_BASE = 0x40  # DRM_COMMAND_BASE
_GET_INFO, _GET_ARRAY = 7, 10
_CLOCKS, _FIRMWARE, _POWER_MODE, _ALL_CONTEXTS = 3, 8, 9, 0
_CONTEXT_ENTRY_BYTES = 144  # struct amdxdna_drm_hwctx_entry; a process id (s64) at byte 16
_MAX_CONTEXTS = 32
POWER_MODES = ("default", "powersaver", "balanced", "performance", "turbo")


@dataclass(frozen=True)
class DriverFacts:
    """`contexts`: pids that hold hardware contexts. `clocks_mhz`: (controller, array). None: not told."""

    error: str | None = None
    contexts: tuple[int, ...] | None = None
    clocks_mhz: tuple[int, int] | None = None
    power_mode: str | None = None
    firmware: str | None = None


def ask(node: str) -> DriverFacts:
    """What the driver behind a device node says; `error` if the node can't be opened."""
    try:
        fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return DriverFacts(error=error.strerror)
    try:
        clocks = _info(fd, _CLOCKS, 48)
        firmware = _info(fd, _FIRMWARE, 16)
        mode = _info(fd, _POWER_MODE, 8)
        return DriverFacts(
            contexts=_contexts(fd),
            clocks_mhz=None if clocks is None else (_u32(clocks, 16), _u32(clocks, 40)),
            power_mode=None if mode is None or mode[0] >= len(POWER_MODES) else POWER_MODES[mode[0]],
            firmware=None if firmware is None else ".".join(map(str, struct.unpack("<4I", firmware))),
        )
    finally:
        os.close(fd)


def _u32(data: bytes, offset: int) -> int:
    return struct.unpack_from("<I", data, offset)[0]


def _request(number: int, size: int) -> int:
    """_IOWR('d', DRM_COMMAND_BASE + number, size)"""
    return 3 << 30 | size << 16 | ord("d") << 8 | (_COMMAND_BASE + number)


def _info(fd: int, parameter: int, size: int) -> bytes | None:
    room = bytearray(size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    try:
        fcntl.ioctl(fd, _request(_GET_INFO, 16), bytearray(struct.pack("<IIQ", parameter, size, address)))
    except OSError:
        return None
    return bytes(room)


def _contexts(fd: int) -> tuple[int, ...] | None:
    room = bytearray(_MAX_CONTEXTS * _CONTEXT_ENTRY_BYTES)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    question = bytearray(
        struct.pack("<IIIIQ", _ALL_CONTEXTS, _CONTEXT_ENTRY_BYTES, _MAX_CONTEXTS, 0, address)
    )
    try:
        fcntl.ioctl(fd, _request(_GET_ARRAY, len(question)), question)
    except OSError:
        return None
    _, entry, count, _, _ = struct.unpack("<IIIIQ", question)
    return tuple(struct.unpack_from("<q", room, i * entry + 16)[0] for i in range(min(count, _MAX_CONTEXTS)))
