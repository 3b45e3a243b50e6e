"""Writes small 32-bit ELF files by the ELF specification, as a linker would leave a core's: for stand-ins."""

from __future__ import annotations

import struct

PROGBITS, SYMTAB, STRTAB, NOBITS = 1, 2, 3, 8
ALLOC, WRITE, EXEC = 2, 1, 4


def small_elf(
    code: int, rodata: int = 256, data: int = 0, bss: int = 0, symbols: tuple[str, ...] = ("main",)
) -> bytes:
    """A file with these sizes; `symbols` are defined, and `printf` is not."""
    names = "\0".join(["", *symbols, "printf", ""])
    table = bytes(16)
    for name in (*symbols, "printf"):
        place = 1 if name in symbols else 0
        table += struct.pack("<IIIBBH", names.index(f"\0{name}\0") + 1, 0, 4, 0x12, 0, place)
    parts = [
        ("", 0, 0, b"", 0),
        (".text", PROGBITS, ALLOC | EXEC, bytes(code), 0),
        (".rodata", PROGBITS, ALLOC, bytes(rodata), 0),
        (".data", PROGBITS, ALLOC | WRITE, bytes(data), 0),
        (".bss", NOBITS, ALLOC | WRITE, bss, 0),
        (".comment", PROGBITS, 0, b"x" * 9999, 0),
        (".symtab", SYMTAB, 0, table, 7),
        (".strtab", STRTAB, 0, names.encode(), 0),
    ]
    section_names = "\0".join([*(p[0] for p in parts), ".shstrtab", ""])
    parts.append((".shstrtab", STRTAB, 0, section_names.encode(), 0))
    body, headers = b"", b""
    for name, kind, flags, content, link in parts:
        size = content if isinstance(content, int) else len(content)
        at = section_names.index(f"{name}\0") if name else 0
        headers += struct.pack("<10I", at, kind, flags, 0, 52 + len(body), size, link, 0, 4, 16)
        body += b"" if isinstance(content, int) else content
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    counts = (52, 0, 0, 40, len(parts), len(parts) - 1)
    return (
        struct.pack("<16sHHIIIIIHHHHHH", ident, 2, 264, 1, 0, 0, 52 + len(body), 0, *counts) + body + headers
    )
