"""What can go wrong with the NPU, and what XRT's messages mean.

All are DeviceErrors: the backend runs the region eager and reports the sentence, or raises it with
fallback="error".
"""

from __future__ import annotations

import re

from torch_xdna.errors import DeviceError


class NpuError(DeviceError):
    """Base of everything below."""


class NpuUnavailable(NpuError):
    """The NPU can't be opened; nothing was run."""


class NpuBusy(NpuUnavailable):
    """Every hardware context of the chip is taken, for longer than we wait."""


class NpuWedged(NpuUnavailable):
    """The firmware gives no context although not all are taken: an earlier run wedged it."""


class NpuMemory(NpuError):
    """A buffer can't be had; the device itself is fine."""


class RunFailed(NpuError):
    """A run was started and did not end well, or could not be started: the array's state is unknown."""


class NpuOff(NpuError):
    """Runs failed earlier in this process; the device stays off until `torch_xdna.devices.npu.reset()`."""


class OtherProcess(NpuError):
    """The NPU was opened by this process's parent before a fork, or by another process before pickling."""


RECOVERY = (
    "end all programs that use the NPU, then `sudo modprobe -r amdxdna && sudo modprobe amdxdna` (it can hang while "
    "a program holds the device); if that does not help suspend and resume the computer, else restart it"
)

# what XRT 2.25 with its amdxdna plug-in says (pattern) -> (class, what it means and what to do)
_MEANINGS: tuple[tuple[str, type[NpuError], str], ...] = (
    (
        r"MGMT_ERT_NOAVAIL|0x2000003",
        NpuWedged,
        "the NPU's firmware gives no new context, as after a run that wedged it; " + RECOVERY,
    ),
    (
        r"CREATE_(HW)?CTX.*err=-(22|16|28)",
        NpuBusy,
        "all hardware contexts of the NPU are in use (six, on some drivers four); end another program that "
        "uses it",
    ),
    (
        r"mmap.*err=-11|MAP_LOCKED|err=-11\b.*unavailable",
        NpuUnavailable,
        "the limit of locked memory is too small for the NPU's 64 MB heap; raise it: `ulimit -l "
        "unlimited`, in "
        "/etc/security/limits.conf `* - memlock unlimited`, in a container --ulimit memlock=-1",
    ),
    (
        r"err=-13\b|Permission denied",
        NpuUnavailable,
        "this user may not open the NPU's device node; join its group: `sudo usermod -aG render $USER`, "
        "then log in anew",
    ),
    (
        r"No such device with index|err=-19\b|err=-6\b|No such device",
        NpuUnavailable,
        "the NPU is not there (any more); see `torch-xdna doctor`; after a crash " + RECOVERY,
    ),
    (
        r"err=-(12|28)\b|bad_alloc|Cannot allocate|No space left",
        NpuMemory,
        "there is no memory for the NPU's buffers; free memory, or compile fewer models in this process",
    ),
    (
        r"[Ii]nvalid xclbin|buffer too small|m_length|No such file|No such kernel|load_xclbin|xclbin",
        NpuUnavailable,
        "the overlay is not usable; build it again: `torch-xdna build-overlay`",
    ),
)


_ADDRESS = re.compile(
    r"\b(addr|offset)=\w+,? ?"
)  # another one each time: the same reason would be told again


def translate(error: BaseException, doing: str, otherwise: type[NpuError] = NpuUnavailable) -> NpuError:
    """XRT's exception as ours: `doing` names the step that failed; unknown messages become `otherwise`."""
    if isinstance(error, NpuError):
        return error
    text = " ".join(_ADDRESS.sub("", str(error)).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        text = f"bad_alloc {text}"
    for pattern, kind, meaning in _MEANINGS:
        if re.search(pattern, text):
            return kind(f"{doing}: {meaning} (XRT says: {text})")
    return otherwise(f"{doing}: XRT says: {text}; `torch-xdna doctor` checks the installation")
