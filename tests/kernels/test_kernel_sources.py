"""What the kernels' sources must not do on this core, and what their estimated sizes say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from torch_xdna.kernels_xdna1 import host, peano_build, sizes
from torch_xdna.kernels_xdna1.__main__ import main
from torch_xdna.kernels_xdna1.description import BY_NAME
from torch_xdna.kernels_xdna1.host_compiler import compiler
from torch_xdna.lowering.overlay.variants import FULL, VARIANTS

SOURCES = sorted((Path(peano_build.__file__).parent / "kernels").iterdir())
_NARROW = r"(?:bfloat16|u?int8_t|u?int16_t|short|char|__bf16|_Float16)"


def narrow_stores(source: str) -> list[str]:
    """Stores of single elements below 32 bits: Peano lost such stores at the end of a hardware loop (found on a Phoenix
    by xdna-emu). Vectors are stored with aie::store_v, which this passes over."""
    text = re.sub(r"//[^\n]*", "", source)
    pointers = set(re.findall(rf"\b{_NARROW}\s*\*\s*(?:__restrict\s+)?(\w+)", text))
    pointers |= set(re.findall(rf"\b{_NARROW}\s+(\w+)\s*\[", text))
    found = re.findall(rf"reinterpret_cast<\s*{_NARROW}\s*\*", text)
    found += re.findall(r"\b(?:memcpy|memset|memmove|std::copy|std::fill)\b", text)
    for name in pointers:
        found += re.findall(rf"\b{name}\s*\[[^\]]*\]\s*[-+*/|&^]?=(?!=)", text)
        found += re.findall(rf"[;{{}}]\s*\*\s*{name}\s*(?:\+\+)?\s*[-+*/|&^]?=(?!=)", text)
        found += re.findall(rf"\*\s*\(\s*{name}\b[^)]*\)\s*=(?!=)", text)
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_kernel_stores_single_elements_below_32_bits(source: Path) -> None:
    assert narrow_stores(source.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "void f(bfloat16 *c) { c[3] = x; }",
        "void f(bfloat16 *__restrict c) { c[i + 1] += x; }",
        "void f(int8_t *c) { *c = 1; }",
        "void f(int16_t *c) { *c++ = 1; }",
        "void f(bfloat16 *c) { *(c + i) = x; }",
        "alignas(64) bfloat16 row[16]; row[2] = x;",
        "auto *p = reinterpret_cast<int8_t *>(c);",
        "memcpy(c, a, 8);",
    ],
)
def test_the_check_sees_each_kind_of_store(source: str) -> None:
    assert narrow_stores(source)


def test_every_kernel_has_an_estimate_of_its_size() -> None:
    assert all(sizes.kernel_bytes(name) > 0 for name in BY_NAME if not name.startswith("row_"))
    totals = [sizes.core_bytes(v.kernels, "ONLY_LAYER_NORM" in v.defines) for v in VARIANTS]
    assert totals == sorted(totals, reverse=True)
    # The estimate of the whole overlay can't tell whether it fits: that is why there is a ladder.
    whole = sizes.core_bytes(FULL.kernels)
    assert whole / sizes.FACTOR < peano_build.PROGRAM_BYTES < whole * sizes.FACTOR


def test_the_table_shows_estimated_bytes_and_their_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"{sizes.FACTOR} x either way" in out
    assert f"{sizes.kernel_bytes('attn_k')}" in out


def test_what_kernels_share_counts_once() -> None:
    both, products = (
        sizes.functions(names)["product"] for names in (("gemm_step", "attn_k"), ("gemm_step",))
    )
    assert both == products
    assert "exponentials" not in sizes.functions(BY_NAME, only_layer_norm=True)


@pytest.mark.parametrize("defines", [(), ("-DONLY_LAYER_NORM",)], ids=["full", "only layer_norm"])
def test_what_the_core_compiles_is_cpp(defines: tuple[str, ...], tmp_path: Path) -> None:
    """The core's macros, which no build for the CPU uses, with the CPU's API: pragmas that only Peano knows are passed
    over, but they must be pragmas."""
    unit = tmp_path / "unit.cc"
    unit.write_text(peano_build.unit(tuple(BY_NAME)))
    flags = [flag for flag in host.FLAGS if flag not in ("-fPIC", "-shared")]
    includes = [f"-I{host.HERE / 'host_api'}", f"-I{host.HERE / 'kernels'}"]
    command = [compiler()[0], *flags, "-Wno-unknown-pragmas", "-fsyntax-only", "-DKERNELS_FOR_CORE", *defines]
    run = subprocess.run([*command, *includes, str(unit)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[:2000]
