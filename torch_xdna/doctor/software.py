"""XRT and its plug-in, pyxrt, the overlay, and the tools to build it."""

from __future__ import annotations

import re
from pathlib import Path

from torch_xdna.devices.npu import binding
from torch_xdna.devices.npu import overlay as overlay_file
from torch_xdna.devices.npu.errors import NpuUnavailable
from torch_xdna.devices.npu.machine import System
from torch_xdna.doctor.check import Check, Findings
from torch_xdna.lowering.overlay import manifest as manifests
from torch_xdna.lowering.overlay import toolchain
from torch_xdna.lowering.overlay.toolchain import MLIR_AIE, PEANO, RECOMMENDED, RELEASES

LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/opt/xilinx/xrt/lib", "/usr/lib64", "/usr/lib")
INSTALL_XRT = (
    "Debian 13: `sudo apt install -t trixie-backports libxrt-npu2 libxrt-utils-npu python3-xrt`; "
    "Arch: `xrt xrt-plugin-amdxdna`"
)


def xrt(findings: Findings) -> Check:
    """XRT's library, and the plug-in that makes it see this NPU, of one version."""
    name = "XRT"
    core, plugin = (_library(findings, n) for n in ("libxrt_coreutil.so.2", "libxrt_driver_xdna.so.2"))
    if core is None:
        return Check(name, "problem", "XRT is not installed", INSTALL_XRT)
    if plugin is None:
        return Check(
            name,
            "problem",
            f"XRT {_version(core)} has no amdxdna plug-in (libxrt_driver_xdna.so), so it sees no NPU",
            "Debian 13: `sudo apt install -t trixie-backports libxrt-npu2`; Arch: xrt-plugin-amdxdna",
        )
    if _version(core)[:4] != _version(plugin)[:4]:
        says = f"XRT {_version(core)} with an amdxdna plug-in for {_version(plugin)}"
        return Check(name, "problem", says, "install both from one source, in the same version")
    return Check(name, "ok", f"XRT {_version(core)} with its amdxdna plug-in")


def python_module(findings: Findings) -> Check:
    """pyxrt for this interpreter, and not the X-ray tracer of the same package name."""
    system = findings.system
    folders = [system.path(f) for f in (*system.python_path, *binding.FOLDERS)]
    found = binding.find(folders, system.python_tag)
    if found.path is None:
        said, _, remedy = (found.problem or "").partition("; ")
        return Check("pyxrt", "problem", said, remedy)
    if system.root == Path("/"):
        try:
            binding.load()
        except NpuUnavailable as error:
            said, _, remedy = str(error).rpartition("; ")
            return Check("pyxrt", "problem", said, remedy)
    return Check("pyxrt", "ok", f"{found.path} fits this Python")


def overlay(findings: Findings) -> Check:
    """The overlay (xclbin) that this version of the package needs."""
    try:
        path = overlay_file.locate(findings.overlay, findings.columns)
        overlay_file.check(path, columns=findings.columns)
    except NpuUnavailable as error:
        said, _, remedy = str(error).partition("; ")
        return Check("overlay", "problem", said, remedy)
    manifest = manifests.read(path)
    says = f"{path}, {manifest.summary}" if manifest else str(path)
    if without := overlay_file.variant_of(path, columns=findings.columns).without:
        return Check(
            "overlay",
            "warning",
            f"{says}; it is without {', '.join(without)}, which run eager on the CPU",
            "another version of Peano may fit more: `torch-xdna build-overlay --force`",
        )
    return Check("overlay", "ok", says)


def compiler(findings: Findings) -> Check:
    """What `torch-xdna build-overlay` needs, once: mlir-aie's aiecc, Peano, XRT's xclbinutil."""
    name = "overlay compiler"
    missing = _missing_tools(findings.system)
    if not missing:
        return _versions(findings, name)
    says, remedies = "no " + ", no ".join(missing), "; ".join(missing.values())
    if findings.passed("overlay"):
        return Check(name, "ok", f"{says}; not needed, the overlay is built")
    return Check(name, "problem", says, remedies)


def _versions(findings: Findings, name: str) -> Check:
    """What is known of the versions that are there."""
    system = findings.system
    peano = system.path(system.environment["PEANO_INSTALL_DIR"]).parent
    of_mlir_aie = {toolchain.installed_version(system.path(f), MLIR_AIE) for f in system.python_path}
    known = of_mlir_aie - {"unknown"}
    verdicts = [
        toolchain.judge(MLIR_AIE, known.pop() if len(known) == 1 else "unknown"),
        toolchain.judge(PEANO, toolchain.installed_version(peano, PEANO)),
    ]
    says = " and ".join(f"{v.tool} {v.version}" for v in verdicts)
    doubtful = [v for v in verdicts if v.status in ("bad", "unknown")]
    if not doubtful:
        return Check(name, "ok", f"{says}; xclbinutil is there")
    worst = (
        "problem"
        if any(v.status == "bad" for v in doubtful) and not findings.passed("overlay")
        else "warning"
    )
    why = "; ".join(f"{v.tool} {v.version} {v.reason}" for v in doubtful)
    return Check(name, worst, why, "; ".join(v.remedy for v in doubtful))


def host_compiler(findings: Findings) -> Check:
    """A C++ compiler for this machine's CPU: it makes calls cheap, and device="array" possible."""
    name, system = "C++ compiler", findings.system
    folders = [system.path(f) for f in system.environment.get("PATH", "").split(":") if f]
    for tool in filter(None, (system.environment.get("CXX"), "g++", "clang++")):
        places = [system.path(tool)] if "/" in tool else [folder / tool for folder in folders]
        if any(place.exists() for place in places):
            return Check(name, "ok", tool)
    says = "none ($CXX, g++, clang++): calls cost the CPU more, and device='array' can't run"
    return Check(name, "warning", says, "Debian, Ubuntu: `sudo apt install g++`")


def _missing_tools(system: System) -> dict[str, str]:
    """Tools that a build of the overlay needs and this machine lacks, each with its remedy."""
    path = [system.path(f) for f in system.environment.get("PATH", "").split(":") if f]
    missing = {}
    in_wheel = [system.path(folder) / "mlir_aie" / "bin" for folder in system.python_path]
    if not any((folder / tool).exists() for folder in path + in_wheel for tool in ("aiecc", "aiecc.py")):
        missing["mlir-aie (aiecc)"] = (
            f"install the mlir_aie wheel, {RECOMMENDED[MLIR_AIE]}, from {RELEASES[MLIR_AIE]}"
        )
    peano = system.environment.get("PEANO_INSTALL_DIR")
    wheels = [f"{folder}/llvm-aie" for folder in system.python_path]
    if peano and not (system.path(peano) / "bin" / "clang++").exists():
        missing["Peano in PEANO_INSTALL_DIR"] = f"{peano} has no bin/clang++: point it at Peano's folder"
    elif not peano:
        missing["Peano (PEANO_INSTALL_DIR)"] = next(
            (f"`export PEANO_INSTALL_DIR={wheel}`" for wheel in wheels if system.path(wheel).is_dir()),
            f"install the llvm-aie wheel, {RECOMMENDED[PEANO]}, from {RELEASES[PEANO]}, point PEANO_INSTALL_DIR at it",
        )
    if not any((folder / "xclbinutil").exists() for folder in [*path, system.path("/opt/xilinx/xrt/bin")]):
        missing["xclbinutil"] = "Debian 13: `sudo apt install -t trixie-backports libxrt-utils`"
    return missing


def _library(findings: Findings, name: str) -> Path | None:
    """The library's real file, whose name ends in its version."""
    for folder in LIBRARY_FOLDERS:
        path = findings.system.path(folder) / name
        if path.exists():
            return path.resolve()
    return None


def _version(library: Path) -> str:
    found = re.search(r"\.so\.([\d.]+)$", library.name)
    return found[1] if found else "?"
