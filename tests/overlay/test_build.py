"""The build driver against stand-ins for aiecc and Peano: success, failure, garbage, a full disk, a kill, each rung of
the ladder."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from torch_xdna.cli.build_overlay import command
from torch_xdna.devices.npu import overlay as overlay_file
from torch_xdna.errors import XdnaError
from torch_xdna.lowering.overlay import build as driver
from torch_xdna.lowering.overlay import manifest as manifests
from torch_xdna.lowering.overlay import toolchain
from torch_xdna.lowering.overlay.build import BuildError, build
from torch_xdna.lowering.overlay.manifest import Manifest, path_of
from torch_xdna.lowering.overlay.toolchain import PEANO, RECOMMENDED
from torch_xdna.lowering.overlay.variants import FULL, LEAN, PRODUCTS, Variant

NAMES = {FULL: "xdna1_4c_0123456789ab", LEAN: "xdna1_4c_0123456789ac", PRODUCTS: "xdna1_4c_0123456789ad"}
NAME = NAMES[FULL]
PROGRAM = 16 * 1024


def name(variant: Variant) -> str:
    return NAMES[variant]


# Writes what $STAND_IN says, and one line per call to $CALLS. $CODE: program bytes of a core, for one call after
# another ("overflow": as the driver's library refuses it, "link": as the linker does).
AIECC = f"""#!{sys.executable} -SE
import os, struct, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from small_elf import small_elf
if "--version" in sys.argv:
    print(os.environ.get("STAND_IN_VERSION", "aiecc 1.3.4")); sys.exit(0)
if "--help" in sys.argv:
    print(os.environ.get("STAND_IN_HELP", "--aie-generate-xclbin --no-xchesscc --xclbin-kernel-name")); sys.exit(0)
with open(os.environ["CALLS"], "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
attempt = len(open(os.environ["CALLS"]).readlines()) - 1
options = dict(a.split("=", 1) for a in sys.argv if "=" in a)
path, name = options["--xclbin-name"], options["--xclbin-kernel-name"]
assert os.path.exists("overlay_kernels.o") and "aie.device(npu1" in open(sys.argv[-1]).read()
how = os.environ.get("STAND_IN", "")
content = bytearray(b"xclbin2\\0" + bytes(400) + name.encode())
content[304:312] = struct.pack("<Q", len(content))
codes = os.environ.get("CODE", "9000").split(",")
code = codes[min(attempt, len(codes) - 1)]
if code == "overflow":
    print("[AIE ERROR] _XAie_LoadProgMemSection():231: Overflow of program memory", file=sys.stderr); sys.exit(1)
if code == "link":
    print("ld.lld: error: section '.text' will not fit in region 'program': overflowed by 2312 bytes"); sys.exit(1)
if code != "none":
    os.makedirs("overlay.mlir.prj")
    more = dict(p.split("=") for p in os.environ.get("SECTIONS", "").split(",") if p)
    symbols = ("main", *os.environ.get("SYMBOLS", "").split())
    with open("overlay.mlir.prj/core_0_2.elf", "wb") as core:
        core.write(small_elf(int(code), symbols=symbols, **{{k: int(v) for k, v in more.items()}}))
    open("overlay.mlir.prj/other.elf", "wb").write(b"not one")
if how == "fail":
    print("overlay.mlir:7:3: error: unknown op", file=sys.stderr); sys.exit(3)
if how == "full":
    open(path, "wb").write(content[:100])
    print("LLVM ERROR: IO failure on output stream: No space left on device", file=sys.stderr); sys.exit(1)
if how == "crash":
    os.kill(os.getpid(), 9)
if how == "nothing":
    sys.exit(0)
if how == "slow":
    open(path, "wb").write(content[:200]); time.sleep(60)
if how == "garbage":
    content = bytearray(b"not an xclbin")
if how == "half":
    content = content[:350]
if how == "other name":
    content = content.replace(name.encode(), b"MLIR_AIE")
    content[304:312] = struct.pack("<Q", len(content))
open(path, "wb").write(content)
"""

CLANG = f"""#!{sys.executable} -SE
import os, sys
if "--version" in sys.argv:
    print("clang version 20.0.0 (stand-in)"); sys.exit(0)
if os.environ.get("STAND_IN") == "kernel fails":
    sys.exit(1)
if "-aie-disable-fold-imm" in sys.argv and "FOLDS" in os.environ:
    sys.exit(1)
target = sys.argv[sys.argv.index("-o") + 1]
open(target, "w").write("object")
if target.endswith("overlay_kernels.o"):
    with open(os.environ["CALLS"] + ".peano", "a") as calls:
        calls.write(" ".join(sys.argv[1:]) + "\\n" + open(sys.argv[sys.argv.index("-c") + 1]).read())
    if "-fstack-usage" in sys.argv:
        open(target[:-2] + ".su", "w").write(os.environ.get("STACK", "k.cc:1:row_apply\\t64\\tstatic"))
"""


def _executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has all tools; returns the file that lists aiecc's calls."""
    root = tmp_path / "tools"
    _executable(root / "path" / "aiecc", AIECC)
    _executable(root / "path" / "xclbinutil", "#!/bin/sh\n")
    _executable(root / "peano" / "bin" / "clang++", CLANG)
    header = root / "mlir_aie" / "include" / "aie_api" / "aie.hpp"
    header.parent.mkdir(parents=True)
    header.write_text("")
    monkeypatch.setenv("PATH", str(root / "path"), prepend=os.pathsep)
    monkeypatch.setenv("PEANO_INSTALL_DIR", str(root / "peano"))
    monkeypatch.setenv("MLIR_AIE_INSTALL_DIR", str(root / "mlir_aie"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("STAND_IN", raising=False)
    (root / f"llvm_aie-{RECOMMENDED[PEANO]}.dist-info").mkdir()
    return tmp_path / "calls"


def _calls(tools: Path) -> list[str]:
    return tools.read_text().splitlines() if tools.exists() else []


def _left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_success_and_then_from_the_cache(tools: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "overlay.xclbin"
    said: list[str] = []
    built = build(4, target, name, report=said.append)
    assert not built.cached and NAME.encode() in target.read_bytes()
    assert [s[:3] for s in said] == ["att", "1/3", "2/3", "3/3"]
    assert _left(target.parent) == ["overlay.xclbin", "overlay.xclbin.json"]
    assert build(4, target, name, report=said.append).cached
    assert len(_calls(tools)) == 1
    (call,) = _calls(tools)
    for option in ("--aie-generate-xclbin", "--no-xchesscc", f"--xclbin-kernel-name={NAME}", "--peano"):
        assert option in call


@pytest.mark.parametrize("changed", ["version", "name", "columns", "kernels", "damage", "force"])
def test_anything_that_goes_in_builds_again(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    target = tmp_path / "overlay.xclbin"
    build(4, target, name)
    columns, named, force = 4, name, False
    if changed == "version":
        monkeypatch.setenv("STAND_IN_VERSION", "aiecc 1.4.2")
    elif changed == "name":
        named = lambda variant: "xdna1_4c_ffffffffffff"  # noqa: E731
    elif changed == "columns":
        columns = 2
    elif changed == "kernels":
        monkeypatch.setattr(driver.kernel_build, "FLAGS", (*driver.kernel_build.FLAGS, "-O3"))
    elif changed == "damage":
        target.write_bytes(target.read_bytes()[:-1])
    else:
        force = True
    assert not build(columns, target, named, force=force).cached
    assert len(_calls(tools)) == 2


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("fail", "aiecc failed with exit code 3: overlay.mlir:7:3: error: unknown op"),
        ("full", "aiecc ran out of disk space .*: free some and try again"),
        ("crash", "aiecc was ended by signal 9"),
        ("nothing", "aiecc ended well but wrote no xclbin"),
        ("garbage", "13 bytes that are no whole xclbin"),
        ("half", "350 bytes that are no whole xclbin"),
        ("other name", f"no kernel named {NAME}"),
        ("kernel fails", "Peano could not compile the kernels"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_the_old_overlay(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, sentence: str
) -> None:
    target = tmp_path / "out" / "overlay.xclbin"
    build(4, target, name)
    before = target.read_bytes(), path_of(target).read_bytes()
    monkeypatch.setenv("STAND_IN", how)
    with pytest.raises(BuildError, match=sentence):
        build(4, target, name, force=True)
    assert (target.read_bytes(), path_of(target).read_bytes()) == before
    assert _left(target.parent) == ["overlay.xclbin", "overlay.xclbin.json"]
    monkeypatch.delenv("STAND_IN")
    assert build(4, target, name).cached


def test_a_full_disk_of_our_own(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "out" / "overlay.xclbin"
    monkeypatch.setattr(driver.os, "replace", full)
    with pytest.raises(BuildError, match=r"no space is left for the overlay in .*out: free some"):
        build(4, target, name)
    assert _left(target.parent) == []


def test_a_folder_that_cant_be_made(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"can't be written to .*: choose another place with --output"):
        build(4, tmp_path / "file" / "overlay.xclbin", name)


def test_killed_in_the_middle(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out" / "overlay.xclbin"
    build(4, target, name)
    before = target.read_bytes()
    code = f"""
        from pathlib import Path
        from torch_xdna.lowering.overlay.build import build
        build(4, Path({str(target)!r}), lambda variant: {NAME!r}, force=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "STAND_IN": "slow"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while len(_calls(tools)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert target.read_bytes() == before
    left = [p for p in target.parent.iterdir() if p.name.startswith(driver.SCRATCH)]
    assert len(left) == 1  # nobody could remove it
    assert build(4, target, name).cached
    os.utime(left[0], (0, 0))  # long ago
    assert not build(4, target, name, force=True).cached
    assert _left(target.parent) == ["overlay.xclbin", "overlay.xclbin.json"]


def test_every_missing_part_has_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PEANO_INSTALL_DIR", raising=False)
    monkeypatch.delenv("MLIR_AIE_INSTALL_DIR", raising=False)
    with pytest.raises(BuildError) as caught:
        build(4, tmp_path / "overlay.xclbin", name)
    for sentence in (
        "aiecc was not found",
        "PEANO_INSTALL_DIR is not set",
        "aie_api/aie.hpp was not found",
        "xclbinutil",
    ):
        assert sentence in str(caught.value)
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("aiecc 1.3.4", ""),
        ("aiecc 1.4.2", ""),
        (
            "aiecc 1.3.0",
            "mlir-aie 1.3.0 is none of the versions that others measured on this chip: install",
        ),
        ("aiecc 1.9.0", "is none of the versions"),
        ("aiecc ?", "does not tell"),
        ("LLVM (http://llvm.org/):\n  LLVM version 22.1.8\naiecc (C++ version) 9796296", "does not tell"),
    ],
)
def test_versions_that_are_not_known_are_warned_about(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, said: str
) -> None:
    monkeypatch.setenv("STAND_IN_VERSION", version)
    notes: list[str] = []
    built = build(4, tmp_path / "overlay.xclbin", name, report=notes.append)
    assert said in notes[0] if said else notes[0].startswith("attempt 1")
    assert built.manifest.notes == ((notes[0],) if said else ())


def _peano(tools: Path, version: str) -> None:
    """Another version of the wheel beside Peano's folder."""
    (root,) = tools.parent.glob("tools")
    for old in root.glob("llvm_aie-*"):
        old.rmdir()
    (root / f"llvm_aie-{version}.dist-info").mkdir()


@pytest.mark.parametrize(
    ("mlir_aie", "peano", "sentence"),
    [
        ("1.2.9", RECOMMENDED[PEANO], r"mlir-aie 1.2.9 is too old.*: install mlir-aie 1.3.4 from"),
        ("1.3.4", "21.0.0.2026062401+fdf257de", "argument of a call after the call.*1053.*: install Peano 20.0.0"),
        ("1.3.4", "22.0.0.2026082101+0", "look-ups at -O2.*1262.*: install Peano"),
    ],
)  # fmt: skip
def test_bad_versions_are_refused_unless_asked_for(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlir_aie: str, peano: str, sentence: str
) -> None:
    monkeypatch.setenv("STAND_IN_VERSION", f"aiecc {mlir_aie}")
    _peano(tools, peano)
    target = tmp_path / "overlay.xclbin"
    with pytest.raises(BuildError, match=f"{sentence}.*--any-toolchain"):
        build(4, target, name)
    assert not target.exists() and not _calls(tools)
    notes: list[str] = []
    assert build(4, target, name, report=notes.append, any_toolchain=True).manifest.versions[PEANO] == peano
    assert any(re.search(sentence, note) for note in notes)


def _compiled(tools: Path) -> str:
    return Path(f"{tools}.peano").read_text()


@pytest.mark.parametrize(
    ("peano", "takes_it", "warned"),
    [
        (RECOMMENDED[PEANO], True, False),
        (RECOMMENDED[PEANO], False, False),  # older than the folding
        ("22.0.0.2026092101+1", True, False),
        ("22.0.0.2026092101+1", False, True),
        ("unreadable", False, True),
    ],
)
def test_folding_of_immediates_is_turned_off_where_peano_takes_the_flag(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peano: str, takes_it: bool, warned: bool
) -> None:
    _peano(tools, peano)
    if not takes_it:
        monkeypatch.setenv("FOLDS", "1")
    notes: list[str] = []
    built = build(4, tmp_path / "overlay.xclbin", name, report=notes.append)
    assert ("-mllvm -aie-disable-fold-imm" in _compiled(tools)) is takes_it
    assert ("-aie-disable-fold-imm" in built.manifest.flags) is takes_it
    assert any("takes no -aie-disable-fold-imm" in note for note in notes) is warned


TIGHT = ("-O2", "-fno-unroll-loops")
ROWS = ("row_stats", "row_apply")
RUNGS = [
    (FULL, ("-O2",), ()),
    (FULL, TIGHT, ()),
    (FULL, TIGHT, ROWS),
    (LEAN, TIGHT, ROWS),
    (PRODUCTS, TIGHT, ROWS),
]


@pytest.mark.parametrize("how", ["overflow", "link", str(PROGRAM + 4)])
@pytest.mark.parametrize("rung", range(len(RUNGS)))
def test_the_first_rung_that_fits_is_taken(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rung: int, how: str
) -> None:
    monkeypatch.setenv("CODE", ",".join([how] * rung + [str(PROGRAM)]))
    target, said = tmp_path / "out" / "overlay.xclbin", []
    built = build(4, target, name, report=said.append)
    variant, flags, small = RUNGS[rung]
    m = built.manifest
    assert (m.variant, m.ops, m.kernels) == (variant.name, variant.ops, variant.kernels)
    assert (m.flags[: len(flags)], m.small) == (flags, small)
    assert m.sizes == {"core_0_2": {"code": PROGRAM, "constants": 256}}
    assert NAMES[variant].encode() in target.read_bytes() and m.kernel == NAMES[variant]
    assert len(_calls(tools)) == rung + 1 and len(m.notes) == rung
    sentence = {"overflow": "16384 bytes of program memory", "link": "program memory, by 2312 bytes"}
    for note in m.notes:
        assert sentence.get(how, "takes 16388 bytes of program memory, 4 more than the 16384") in note
    assert manifests.read(target) == m
    assert build(4, target, name).cached
    unit = _compiled(tools).rpartition("-o ")[2]
    assert unit.count('#include "attn_') == (0 if variant is PRODUCTS else 4)
    assert unit.count("__attribute__((minsize))") == len(small)
    assert ("-DONLY_LAYER_NORM" in _compiled(tools)) is (variant is not FULL)
    assert _left(target.parent) == ["overlay.xclbin", "overlay.xclbin.json"]


def test_nothing_fits(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE", "overflow")
    with pytest.raises(
        BuildError, match=r"no overlay fits, not even the smallest .*another version of Peano"
    ):
        build(4, tmp_path / "overlay.xclbin", name)
    assert len(_calls(tools)) == len(RUNGS) and not (tmp_path / "overlay.xclbin").exists()


def test_data_memory_counts_too(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECTIONS", "rodata=1024,data=512,bss=513")
    with pytest.raises(
        BuildError, match=r"takes 2049 bytes of data memory beside its buffers .*2048 are kept"
    ):
        build(4, tmp_path / "overlay.xclbin", name)


def test_a_failure_that_no_rung_mends_ends_the_climb(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "fail")
    with pytest.raises(BuildError, match="exit code 3"):
        build(4, tmp_path / "overlay.xclbin", name)
    assert len(_calls(tools)) == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SYMBOLS", "__umodsi3 __udivsi3 memcpy __start", r"library calls \(__udivsi3, __umodsi3\)"),
        ("CODE", "none", "no linked cores to read"),
        ("SYMBOLS", "memcpy __start gemm_step", ""),
    ],
)
def test_what_the_linked_cores_say_is_reported(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    notes = build(4, tmp_path / "overlay.xclbin", name).manifest.notes
    assert re.search(said, " ".join(notes)) if said else notes == ()


@pytest.mark.parametrize("call", ["__mulsf3", "__divsf3", "__extendhfsf2", "__truncsfbf2", "__floatsisf"])
def test_soft_floats_are_refused_unless_asked_for(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setenv("SYMBOLS", f"__udivsi3 {call} memcpy __start")
    target = tmp_path / "overlay.xclbin"
    with pytest.raises(BuildError, match=f"{call} stand where a kernel .* --any-toolchain"):
        build(4, target, name)
    assert not target.exists() and len(_calls(tools)) == 1
    notes = build(4, target, name, any_toolchain=True).manifest.notes
    assert f": {call} stand where a kernel should use the vector unit" in " ".join(notes)


def test_too_large_a_stack_is_refused(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK", "k.cc:1:row_apply\t2048\tstatic\nk.cc:2:normalise\t1344\tstatic\n")
    with pytest.raises(
        BuildError, match=r"row_apply \(2048\) and normalise \(1344\) need 3392 .* keeps 3328"
    ):
        build(4, tmp_path / "overlay.xclbin", name)
    monkeypatch.setenv("STACK", "k.cc:1:row_apply\t2048\tstatic\nk.cc:2:normalise\t1280\tstatic\n")
    build(4, tmp_path / "overlay.xclbin", name)


@pytest.mark.parametrize("newer", [False, True])
def test_each_aiecc_gets_the_options_that_it_knows(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    if newer:
        monkeypatch.setenv("STAND_IN_HELP", "--xclbin-name --xclbin-kernel-name --peano --alloc-scheme")
    build(4, tmp_path / "overlay.xclbin", name)
    (call,) = _calls(tools)
    assert ("--get-xclbin --get-core-elfs" in call) is newer
    assert ("--aie-generate-xclbin" in call) is ("--no-xchesscc" in call) is not newer


def test_where_the_ladder_begins_can_be_chosen(tools: Path, tmp_path: Path) -> None:
    built = build(4, tmp_path / "overlay.xclbin", name, level="-O1", largest=LEAN)
    assert built.manifest.variant == LEAN.name and built.manifest.flags[0] == "-O1"


def test_a_manifest_beside_another_file_says_nothing(tools: Path, tmp_path: Path) -> None:
    target = tmp_path / "overlay.xclbin"
    manifest = build(4, target, name).manifest
    assert manifests.read(target) == manifest and isinstance(manifest, Manifest)
    target.write_bytes(target.read_bytes() + b"x")
    assert manifests.read(target) is None
    path_of(target).write_text("{}")
    assert manifests.read(target) is None


def test_the_table_of_versions_names_one_recommended_pair() -> None:
    for tool, version in RECOMMENDED.items():
        assert toolchain.judge(tool, version).status == "recommended"
    rows = [row for row in toolchain.TABLE if row.status == "recommended"]
    assert len(rows) == len(RECOMMENDED)
    assert all(row.source and row.reason and row.first <= row.last for row in toolchain.TABLE)


@pytest.mark.parametrize("page", ["README.md", "docs/npu.md"])
def test_the_papers_install_the_recommended_pair(page: str) -> None:
    text = (Path(driver.__file__).resolve().parents[2] / page).read_text()
    (install,) = (line for line in text.splitlines() if "pip install mlir_aie" in line)
    assert f"mlir_aie=={RECOMMENDED[toolchain.MLIR_AIE]} " in install
    assert f"llvm-aie=={RECOMMENDED[PEANO]} " in install


def test_command_puts_it_where_the_npu_device_looks(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = CliRunner().invoke(command, ["--columns", "2"], catch_exceptions=False)
    assert result.exit_code == 0
    path = overlay_file.locate(None, 2)
    assert overlay_file.check(path, columns=2) == overlay_file.kernel_name(2)
    assert overlay_file.variant_of(path, columns=2) is FULL
    assert "was already built" in CliRunner().invoke(command, ["--columns", "2"]).output


def test_command_fails_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(XdnaError, match="aiecc was not found"):
        CliRunner().invoke(command, [], catch_exceptions=False, standalone_mode=False)
