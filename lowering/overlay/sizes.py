"""What a built overlay's cores take, against what a core has: program memory, data memory, stack; and library calls.

Linked cores lie where aiecc works, one ELF file each. An aiecc that leaves none can't be checked, which is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch_xdna.kernels_xdna1.contract import CONSTANT_BYTES
from torch_xdna.lowering import limits
from torch_xdna.lowering.overlay import elf

# Functions of the compiler's own library: soft floats and divisions, 132 cycles per element and more.
_LIBRARY_CALL = re.compile(r"__[a-z]+(?:[sdhtb]f|[sdt]i)(?:[sdhtb]f|[sdt]i)?[23]?")
_FLOATS = re.compile(r"(?:[sdhtb]f)(?:[23]|$|[sdhtb]f|[sdt]i)|[sdt]i[sdhtb]f")
# How a linker and the driver's library say that a core does not fit.
_OVERFLOWS = (
    (re.compile(r"_XAie_LoadProgMemSection.*Overflow of program memory", re.IGNORECASE), "program memory"),
    (
        re.compile(r"section '[^']*' will not fit in region 'program'(?:: overflowed by (\d+) bytes)?"),
        "program memory",
    ),
    (
        re.compile(r"section '[^']*' will not fit in region 'data'(?:: overflowed by (\d+) bytes)?"),
        "data memory",
    ),
)


@dataclass(frozen=True)
class CoreSizes:
    """Bytes of one linked core. `constants`: .rodata, .data and .bss, what lies behind the buffers."""

    core: str
    code: int
    constants: int
    library_calls: tuple[str, ...]

    @property
    def overflow(self) -> str | None:
        """One sentence if it does not fit, else None."""
        program = limits.CORE_PROGRAM.maximum
        if self.code > program:
            return (
                f"{self.core} takes {self.code} bytes of program memory, {self.code - program} more than the "
                f"{program} that a core has"
            )
        if self.constants > CONSTANT_BYTES:
            return (
                f"{self.core} takes {self.constants} bytes of data memory beside its buffers (.rodata, .data, .bss), "
                f"and {CONSTANT_BYTES} are kept for them"
            )
        return None


def measure(files: Iterable[Path]) -> list[CoreSizes]:
    """Sizes of linked cores, by name; files that are no core's (no code of their own) are passed over."""
    found = []
    for path in sorted(files):
        content = path.read_bytes()
        try:
            parts = [s for s in elf.sections(content) if s.flags & elf.ALLOCATED]
            symbols = elf.defined_symbols(content)
        except elf.NotElf:
            continue
        code = sum(s.size for s in parts if s.flags & elf.EXECUTABLE)
        if code:
            calls = tuple(sorted(name for name in symbols if _LIBRARY_CALL.fullmatch(name)))
            constants = sum(s.size for s in parts if not s.flags & elf.EXECUTABLE)
            found.append(CoreSizes(path.stem, code, constants, calls))
    return found


def is_soft_float(call: str) -> bool:
    """`__mulsf3`, `__floatsisf`; not `__udivsi3`."""
    return _FLOATS.search(call.removeprefix("__")) is not None


def overflow_message(text: str) -> str | None:
    """One sentence if a tool's output says that a core does not fit, else None."""
    for pattern, memory in _OVERFLOWS:
        if hit := pattern.search(text):
            groups = [g for g in hit.groups() if g]
            by = f", by {groups[0]} bytes" if groups else ""
            room = limits.CORE_PROGRAM.maximum if memory == "program memory" else limits.CORE_MEMORY.maximum
            return f"the linked core does not fit into its {room} bytes of {memory}{by}"
    return None


def stack_use(text: str) -> dict[str, int]:
    """Bytes of stack per function, from what clang's -fstack-usage writes (place:function, bytes, kind; by tabs)."""
    lines = [line.split("\t") for line in text.splitlines()]
    return {
        fields[0].rpartition(":")[2]: int(fields[1])
        for fields in lines
        if len(fields) >= 2 and fields[1].isdigit()
    }


def stack_sentence(use: dict[str, int]) -> str | None:
    """One sentence if a function needs more stack than a core keeps, else None.

    Frames add up along a chain of calls, so one that fits alone may be too large below another: the sum of the two
    largest is held to the stack, because kernels call shared functions and those call none.
    """
    largest = sorted(use.items(), key=lambda item: -item[1])[:2]
    total = sum(size for _, size in largest)
    if total <= limits.CORE_STACK:
        return None
    names = " and ".join(f"{name} ({size})" for name, size in largest)
    return f"{names} need {total} bytes of stack if one calls the other, and a core keeps {limits.CORE_STACK}"
