"""A made-up laptop with an NPU, as files below a folder: for the doctor, which reads files only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sandbox.host import PCI_ADDRESS, write_phoenix

from torch_xdna.devices.npu import overlay as overlay_file
from torch_xdna.devices.npu.machine import System
from torch_xdna.doctor import Check, diagnose
from torch_xdna.doctor.driver import DriverFacts
from torch_xdna.lowering.overlay.toolchain import PACKAGES as PACKAGE_NAMES
from torch_xdna.lowering.overlay.toolchain import RECOMMENDED

TAG = "cpython-313-x86_64-linux-gnu"
PACKAGES = "/usr/lib/python3/dist-packages"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
DRIVER = DriverFacts(contexts=(), clocks_mhz=(400, 800), power_mode="default", firmware="1.5.5.391")
USER = 1000
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin", "PEANO_INSTALL_DIR": f"{PACKAGES}/llvm-aie"}


def limits(memlock: str) -> str:
    columns = "Limit                     Soft Limit           Hard Limit           Units"
    return f"{columns}\nMax locked memory         {memlock:20} {memlock:20} bytes\n"


class Machine:
    """A laptop on which everything is right; tests break one thing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write_phoenix(root)
        self.facts = DRIVER
        self.system = System(
            root,
            uid=USER,
            groups=frozenset({os.getgid()}),
            environment=ENVIRONMENT,
            python_tag=TAG,
            python_path=(PACKAGES,),
        )
        self.write("/proc/sys/kernel/osrelease", "6.16.3-amd64")
        self.write("/proc/self/limits", limits("unlimited"))
        self.write("/proc/self/status", "CapEff:\t0000000000000000")
        self.write("/sys/module/amdxdna/version", "0.6")
        self.write("/etc/group", f"render:x:{os.getgid()}:\n")
        self.write(f"{PACKAGES}/pyxrt.{TAG}.so", "")
        self.write(f"{PACKAGES}/mlir_aie/bin/aiecc", "")
        self.write(f"{PACKAGES}/llvm-aie/bin/clang++", "")
        for tool, version in RECOMMENDED.items():
            self.write(f"{PACKAGES}/{PACKAGE_NAMES[tool]}-{version}.dist-info/METADATA", "")
        self.write("/usr/bin/xclbinutil", "")
        self.write("/usr/bin/g++", "")
        for library in ("libxrt_coreutil", "libxrt_driver_xdna"):
            self.write(f"{LIBRARIES}/{library}.so.2.25.00", "")
            (root / f"{LIBRARIES}/{library}.so.2".lstrip("/")).symlink_to(f"{library}.so.2.25.00")
        self.path("/dev/accel/accel0").chmod(0o660)
        self.overlay = write_overlay(self.path("/overlay.xclbin"))

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    @property
    def pci(self) -> str:
        return f"/sys/devices/pci0000:00/{PCI_ADDRESS}"

    def write(self, absolute: str, text: str) -> None:
        self.path(absolute).parent.mkdir(parents=True, exist_ok=True)
        self.path(absolute).write_text(text)

    def remove(self, absolute: str) -> None:
        path = self.path(absolute)
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def diagnose(self) -> list[Check]:
        return diagnose(self.system, overlay=str(self.overlay), ask_driver=lambda node: self.facts)


def write_overlay(path: Path) -> Path:
    """A file that looks like this version's xclbin for 4 columns, to everything but XRT."""
    content = bytearray(512)
    content[:8], content[304:312] = b"xclbin2\0", len(content).to_bytes(8, "little")
    name = overlay_file.kernel_name(4).encode()
    content[400 : 400 + len(name)] = name
    path.write_bytes(content)
    return path
