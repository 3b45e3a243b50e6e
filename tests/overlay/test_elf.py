"""The ELF reader on files written by the specification, and on files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_elf import small_elf

from torch_xdna.lowering.overlay.elf import NotElf, defined_symbols, sections
from torch_xdna.lowering.overlay.sizes import measure


def test_sections_and_symbols() -> None:
    content = small_elf(1000, rodata=64, data=32, bss=16, symbols=("main", "__mulsf3"))
    sizes = {section.name: section.size for section in sections(content)}
    assert [sizes[name] for name in (".text", ".rodata", ".data", ".bss")] == [1000, 64, 32, 16]
    assert defined_symbols(content) == {"main", "__mulsf3"}  # not printf, which is only used


def test_sizes_count_what_is_loaded_or_cleared(tmp_path: Path) -> None:
    (tmp_path / "core_0_2.elf").write_bytes(
        small_elf(1000, rodata=64, data=32, bss=16, symbols=("main", "__divsf3"))
    )
    (tmp_path / "empty.elf").write_bytes(b"")
    (core,) = measure(tmp_path.glob("*.elf"))
    assert (core.core, core.code, core.constants, core.library_calls) == (
        "core_0_2",
        1000,
        112,
        ("__divsf3",),
    )


@pytest.mark.parametrize("length", [0, 5, 51, 60, -1])
def test_what_is_no_whole_file_is_said_to_be_none(length: int) -> None:
    with pytest.raises(NotElf):
        sections(small_elf(1000)[:length])


def test_64_bit_files_are_none() -> None:
    content = bytearray(small_elf(1000))
    content[4] = 2
    with pytest.raises(NotElf):
        sections(bytes(content))
