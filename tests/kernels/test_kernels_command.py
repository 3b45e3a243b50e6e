"""`python -m torch_xdna.kernels_xdna1`: the table and the build for the core."""

import subprocess

import pytest

from torch_xdna.kernels_xdna1 import contract, cycles, description, peano_build, precedents
from torch_xdna.kernels_xdna1.__main__ import main


def test_table_lists_every_kernel(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(kernel.name in out for kernel in description.KERNELS)
    assert "modelled" in out and f"{cycles.cycles('gemm_step'):.0f}" in out and "5427" in out


def test_table_lists_every_loop_with_what_bounds_it(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for loop in cycles.loops("attn_k"):
        line = next(line for line in out.splitlines() if line.startswith("│ attn_k") and loop["name"] in line)
        assert all(f" {loop[key]} " in line for key in ("trips", "mii", "ii", "bound")), line


def test_precedents_are_shown_with_their_errors(capsys):
    assert main(["precedents"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(p.kernel.split(",")[0] in out for p in precedents.PRECEDENTS)
    assert "without its own rows: median error" in out


def test_build_says_that_peano_is_missing(monkeypatch, capsys):
    monkeypatch.delenv("PEANO_INSTALL_DIR", raising=False)
    assert main(["build"]) == 2
    assert "PEANO_INSTALL_DIR is not set" in capsys.readouterr().err


def test_build_says_that_the_folder_holds_no_compiler(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PEANO_INSTALL_DIR", str(tmp_path))
    assert main(["build"]) == 2
    assert f"{tmp_path}/bin/clang++ does not exist" in capsys.readouterr().err


@pytest.fixture
def toolchain(monkeypatch, tmp_path):
    """Stand-ins that record what they are asked to do; llvm-size reports what the test wants."""
    binaries, headers = tmp_path / "peano" / "bin", tmp_path / "aie" / "include" / "aie_api"
    binaries.mkdir(parents=True), headers.mkdir(parents=True)
    (headers / "aie.hpp").touch()
    compiler = binaries / "clang++"
    compiler.write_text(
        '#!/bin/sh\necho "$@" > "$(dirname "$0")/arguments"\n'
        'for last; do :; done\ncp "$(echo "$@" | sed "s/.*-c \\([^ ]*\\) .*/\\1/")" "$last"\n'
    )
    size = binaries / "llvm-size"
    for tool in (compiler, size):
        tool.touch()
        tool.chmod(0o755)
    monkeypatch.setenv("PEANO_INSTALL_DIR", str(tmp_path / "peano"))
    monkeypatch.setenv("MLIR_AIE_INSTALL_DIR", str(tmp_path / "aie"))

    def reports(text_bytes, constant_bytes=1856):
        sections = {".text": text_bytes, ".text.gelu": 100, ".rodata.cst64": constant_bytes, ".comment": 9999}
        size.write_text("#!/bin/sh\n" + "".join(f"echo '{n} {b} 0'\n" for n, b in sections.items()))

    reports(1000)
    return binaries, reports


def test_build_compiles_every_kernel_into_one_object(toolchain, tmp_path, capsys):
    binaries, _ = toolchain
    assert main(["build", str(tmp_path / "out")]) == 0
    result = tmp_path / "out" / peano_build.OBJECT
    assert capsys.readouterr().out.strip() == str(result)
    included = [line.split('"')[1] for line in result.read_text().splitlines()]
    assert included == [f"{kernel.name}.cc" for kernel in description.KERNELS]
    arguments = (binaries / "arguments").read_text()
    assert "--target=aie2-none-unknown-elf" in arguments and f"-I{tmp_path}/aie/include" in arguments


def test_build_refuses_what_does_not_fit(toolchain, tmp_path, capsys):
    toolchain[1](12 * 1024)
    assert main(["build", str(tmp_path / "out")]) == 2
    assert "take 12388 bytes of program memory and a core has 12288 for them" in capsys.readouterr().err
    assert not (tmp_path / "out" / peano_build.OBJECT).exists()
    toolchain[1](1000, contract.CONSTANT_BYTES + 1)
    assert main(["build", str(tmp_path / "out")]) == 2
    assert "constants take 2049 bytes of data memory and 2048 are kept" in capsys.readouterr().err


def test_build_says_that_headers_are_missing(toolchain, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MLIR_AIE_INSTALL_DIR", str(tmp_path))
    assert main(["build", str(tmp_path / "out")]) == 2
    assert "aie_api/aie.hpp was not found" in capsys.readouterr().err


def test_build_passes_on_a_compiler_failure(toolchain, tmp_path, capsys):
    (toolchain[0] / "clang++").write_text("#!/bin/sh\nexit 7\n")
    assert main(["build", str(tmp_path / "out")]) == 2
    assert "clang++ failed with exit status 7" in capsys.readouterr().err
    with pytest.raises(subprocess.CalledProcessError):
        peano_build.build(tmp_path)
