"""Reads what a linked core's ELF file says about its size: sections and symbols of a 32-bit little-endian ELF.

Only what `lowering.overlay.sizes` needs, by the ELF specification's own layouts; no tool of the compiler is asked, so
the sizes can be read whatever toolchain is installed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

ALLOCATED, EXECUTABLE = 0x2, 0x4  # section flags: SHF_ALLOC, SHF_EXECINSTR
_SYMBOLS = 2  # section type SHT_SYMTAB
_HEADER, _SECTION, _SYMBOL = (
    struct.Struct("<16sHHIIIIIHHHHHH"),
    struct.Struct("<10I"),
    struct.Struct("<IIIBBH"),
)


class NotElf(ValueError):
    """The bytes are no whole 32-bit little-endian ELF file."""


@dataclass(frozen=True)
class Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int


def sections(content: bytes) -> list[Section]:
    """All sections, in the file's order. Raises NotElf."""
    if content[:6] != b"\x7fELF\x01\x01" or len(content) < _HEADER.size:
        raise NotElf("no 32-bit little-endian ELF file")
    header = _HEADER.unpack_from(content)
    start, entry, count, names = header[6], header[11], header[12], header[13]
    if (
        start + entry * count > len(content)
        or (count and entry < _SECTION.size)
        or (count and names >= count)
    ):
        raise NotElf("the section headers lie outside the file")
    raw = [_SECTION.unpack_from(content, start + entry * i) for i in range(count)]
    table = content[raw[names][4] : raw[names][4] + raw[names][5]] if count else b""
    return [Section(_text(table, r[0]), r[1], r[2], r[4], r[5], r[6]) for r in raw]


def defined_symbols(content: bytes) -> set[str]:
    """Names of the symbols that the file defines; empty if it was stripped. Raises NotElf."""
    found = sections(content)
    names: set[str] = set()
    for section in found:
        if section.kind != _SYMBOLS:
            continue
        if section.link >= len(found) or section.offset + section.size > len(content):
            raise NotElf("the symbol table lies outside the file")
        strings = found[section.link]
        table = content[strings.offset : strings.offset + strings.size]
        body = content[section.offset : section.offset + section.size // _SYMBOL.size * _SYMBOL.size]
        names |= {_text(table, name) for name, _, _, _, _, place in _SYMBOL.iter_unpack(body) if place}
    return names - {""}


def _text(table: bytes, at: int) -> str:
    return table[at : table.find(b"\0", at)].decode(errors="replace") if at < len(table) else ""
