"""The build driver against stand-ins for aiecc and Peano: success, failure, garbage, a full disk, a kill."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from lowering.overlay import build as driver
from lowering.overlay.build import BuildError, build, stamp_path
from torch_xdna.cli.build_overlay import command
from torch_xdna.devices.npu import overlay as overlay_file
from torch_xdna.errors import XdnaError

NAME = "xdna1_4c_0123456789ab"

# Writes what $STAND_IN says, and one line per call to $CALLS.
AIECC = f"""#!{sys.executable} -SE
import os, struct, sys, time
if "--version" in sys.argv:
    print(os.environ.get("STAND_IN_VERSION", "aiecc 1.3.4")); sys.exit(0)
with open(os.environ["CALLS"], "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
options = dict(a.split("=", 1) for a in sys.argv if "=" in a)
path, name = options["--xclbin-name"], options["--xclbin-kernel-name"]
assert os.path.exists("overlay_kernels.o") and "aie.device(npu1" in open(sys.argv[-1]).read()
how = os.environ.get("STAND_IN", "")
content = bytearray(b"xclbin2\\0" + bytes(400) + name.encode())
content[304:312] = struct.pack("<Q", len(content))
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
open(sys.argv[sys.argv.index("-o") + 1], "w").write("object")
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
    return tmp_path / "calls"


def _calls(tools: Path) -> list[str]:
    return tools.read_text().splitlines() if tools.exists() else []


def _left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_success_and_then_from_the_cache(tools: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "overlay.xclbin"
    said: list[str] = []
    built = build(4, target, NAME, report=said.append)
    assert not built.cached and NAME.encode() in target.read_bytes()
    assert [s[:3] for s in said] == ["1/3", "2/3", "3/3"]
    assert _left(target.parent) == ["overlay.xclbin", "overlay.xclbin.json"]
    assert build(4, target, NAME, report=said.append).cached
    assert len(_calls(tools)) == 1
    (call,) = _calls(tools)
    for option in ("--aie-generate-xclbin", "--no-xchesscc", f"--xclbin-kernel-name={NAME}", "--peano"):
        assert option in call


@pytest.mark.parametrize("changed", ["version", "name", "columns", "kernels", "damage", "force"])
def test_anything_that_goes_in_builds_again(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    target = tmp_path / "overlay.xclbin"
    build(4, target, NAME)
    columns, name, force = 4, NAME, False
    if changed == "version":
        monkeypatch.setenv("STAND_IN_VERSION", "aiecc 1.4.2")
    elif changed == "name":
        name = "xdna1_4c_ffffffffffff"
    elif changed == "columns":
        columns = 2
    elif changed == "kernels":
        monkeypatch.setattr(driver.kernel_build, "FLAGS", (*driver.kernel_build.FLAGS, "-O3"))
    elif changed == "damage":
        target.write_bytes(target.read_bytes()[:-1])
    else:
        force = True
    assert not build(columns, target, name, force=force).cached
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
    build(4, target, NAME)
    before = target.read_bytes(), stamp_path(target).read_bytes()
    monkeypatch.setenv("STAND_IN", how)
    with pytest.raises(BuildError, match=sentence):
        build(4, target, NAME, force=True)
    assert (target.read_bytes(), stamp_path(target).read_bytes()) == before
    assert _left(target.parent) == ["overlay.xclbin", "overlay.xclbin.json"]
    monkeypatch.delenv("STAND_IN")
    assert build(4, target, NAME).cached


def test_a_full_disk_of_our_own(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "out" / "overlay.xclbin"
    monkeypatch.setattr(driver.os, "replace", full)
    with pytest.raises(BuildError, match=r"no space is left for the overlay in .*out: free some"):
        build(4, target, NAME)
    assert _left(target.parent) == []


def test_a_folder_that_cant_be_made(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"can't be written to .*: choose another place with --output"):
        build(4, tmp_path / "file" / "overlay.xclbin", NAME)


def test_killed_in_the_middle(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out" / "overlay.xclbin"
    build(4, target, NAME)
    before = target.read_bytes()
    code = f"""
        from pathlib import Path
        from lowering.overlay.build import build
        build(4, Path({str(target)!r}), {NAME!r}, force=True)
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
    assert build(4, target, NAME).cached
    os.utime(left[0], (0, 0))  # long ago
    assert not build(4, target, NAME, force=True).cached
    assert _left(target.parent) == ["overlay.xclbin", "overlay.xclbin.json"]


def test_every_missing_part_has_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PEANO_INSTALL_DIR", raising=False)
    monkeypatch.delenv("MLIR_AIE_INSTALL_DIR", raising=False)
    with pytest.raises(BuildError) as caught:
        build(4, tmp_path / "overlay.xclbin", NAME)
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
        ("aiecc 1.2.9", None),
        ("aiecc 1.3.0", ""),
        ("aiecc 1.4.2", ""),
        ("aiecc 1.9.0", "none of the versions"),
        ("aiecc ?", "does not tell"),
        ("LLVM (http://llvm.org/):\n  LLVM version 22.1.8\naiecc (C++ version) 9796296", "does not tell"),
    ],
)
def test_versions(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, said: str | None
) -> None:
    monkeypatch.setenv("STAND_IN_VERSION", version)
    notes: list[str] = []
    if said is None:
        with pytest.raises(BuildError, match=r"mlir-aie 1.2.9 is too old: install 1.3 or newer"):
            build(4, tmp_path / "overlay.xclbin", NAME)
        return
    build(4, tmp_path / "overlay.xclbin", NAME, report=notes.append)
    first = notes[0]
    assert said in first if said else first.startswith("1/3")


def test_command_puts_it_where_the_npu_device_looks(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = CliRunner().invoke(command, ["--columns", "2"], catch_exceptions=False)
    assert result.exit_code == 0
    path = overlay_file.locate(None, 2)
    assert overlay_file.check(path, columns=2) == overlay_file.kernel_name(2)
    assert "was already built" in CliRunner().invoke(command, ["--columns", "2"]).output


def test_command_fails_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(XdnaError, match="aiecc was not found"):
        CliRunner().invoke(command, [], catch_exceptions=False, standalone_mode=False)
