"""Every state of a machine that `torch-xdna doctor` tells apart, each below a made-up root."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from machine import DRIVER, ENVIRONMENT, LIBRARIES, PACKAGES, TAG, Machine, limits

from torch_xdna.cli.doctor import command
from torch_xdna.devices.npu import context
from torch_xdna.devices.npu import machine as system
from torch_xdna.devices.npu import overlay as overlay_file
from torch_xdna.devices.npu.machine import device_users
from torch_xdna.doctor import usable
from torch_xdna.doctor.driver import DriverFacts
from torch_xdna.doctor.hardware import XDNA2
from torch_xdna.lowering.overlay.toolchain import PEANO, RECOMMENDED
from torch_xdna.lowering.overlay.variants import LEAN


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_everything_right(machine: Machine) -> None:
    checks = machine.diagnose()
    assert [(c.name, c.status) for c in checks if c.status != "ok"] == []
    assert usable(checks)
    assert [c.name for c in checks] == [
        "chip", "kernel driver", "device node", "permission", "locked memory", "firmware", "XRT", "pyxrt",
        "free contexts", "overlay", "overlay compiler", "C++ compiler", "power mode",
    ]  # fmt: skip
    assert not any(c.remedy for c in checks)


def no_device(m: Machine) -> None:
    m.remove("/sys/bus/pci/devices")


def xdna2(m: Machine) -> None:
    m.write(f"{m.pci}/device", "0x17f0")


def not_bound(m: Machine) -> None:
    m.remove(f"{m.pci}/driver")


def vfio(m: Machine) -> None:
    m.remove(f"{m.pci}/driver")
    m.write("/sys/bus/pci/drivers/vfio-pci/bind", "")
    m.path(f"{m.pci}/driver").symlink_to(m.path("/sys/bus/pci/drivers/vfio-pci"))


def not_loaded(m: Machine) -> None:
    not_bound(m)
    m.remove("/sys/module/amdxdna")
    m.write("/lib/modules/6.16.3-amd64/kernel/drivers/accel/amdxdna/amdxdna.ko.xz", "")


def old_kernel(m: Machine) -> None:
    not_bound(m)
    m.remove("/sys/module/amdxdna")
    m.write("/proc/sys/kernel/osrelease", "6.12.41-amd64")


def kernel_without(m: Machine) -> None:
    not_bound(m)
    m.remove("/sys/module/amdxdna")


def no_node(m: Machine) -> None:
    m.remove("/dev/accel")


def in_container(m: Machine) -> None:
    no_node(m)
    m.write("/.dockerenv", "")


def not_in_group(m: Machine) -> None:
    m.system = dataclasses.replace(m.system, groups=frozenset())


def container_user(m: Machine) -> None:
    not_in_group(m)
    m.write("/run/.containerenv", "")


def little_memlock(m: Machine) -> None:
    m.write("/proc/self/limits", limits("8388608"))


def container_memlock(m: Machine) -> None:
    little_memlock(m)
    m.write("/.dockerenv", "")


def some_memlock(m: Machine) -> None:
    m.write("/proc/self/limits", limits("134217728"))


def old_firmware(m: Machine) -> None:
    m.write(f"{m.pci}/fw_version", "1.5.2.380\n")


def no_firmware(m: Machine) -> None:
    m.remove(f"{m.pci}/fw_version")
    m.facts = DriverFacts(contexts=())


def firmware_in_a_file(m: Machine) -> None:
    no_firmware(m)
    m.write("/lib/firmware/amdnpu/1502_00/npu.sbin.zst", "")


def unreadable_limit(m: Machine) -> None:
    m.remove("/proc/self/limits")


def no_xrt(m: Machine) -> None:
    m.remove(f"{LIBRARIES}/libxrt_coreutil.so.2")


def no_plugin(m: Machine) -> None:
    m.remove(f"{LIBRARIES}/libxrt_driver_xdna.so.2")


def mixed_xrt(m: Machine) -> None:
    no_plugin(m)
    m.write(f"{LIBRARIES}/libxrt_driver_xdna.so.2.21.75", "")
    m.path(f"{LIBRARIES}/libxrt_driver_xdna.so.2").symlink_to("libxrt_driver_xdna.so.2.21.75")


def no_pyxrt(m: Machine) -> None:
    m.remove(f"{PACKAGES}/pyxrt.{TAG}.so")


def other_python(m: Machine) -> None:
    m.system = dataclasses.replace(m.system, python_tag="cpython-311-x86_64-linux-gnu")


def x_ray_tracer(m: Machine) -> None:
    no_pyxrt(m)
    m.write(f"{PACKAGES}/xrt/backends/raycing/__init__.py", "")


def all_contexts(m: Machine) -> None:
    m.facts = dataclasses.replace(DRIVER, contexts=(4711,) * 6)
    m.write("/proc/4711/comm", "llm-server")


def dead_driver(m: Machine) -> None:
    m.facts = DriverFacts(error="Input/output error")


def no_overlay(m: Machine) -> None:
    m.overlay.unlink()


def truncated_overlay(m: Machine) -> None:
    m.overlay.write_bytes(m.overlay.read_bytes()[:450])


def old_overlay(m: Machine) -> None:
    m.overlay.write_bytes(
        m.overlay.read_bytes().replace(overlay_file.kernel_name(4).encode(), b"xdna1_4c_0123456789ab")
    )


def reduced_overlay(m: Machine) -> None:
    m.overlay.write_bytes(
        m.overlay.read_bytes().replace(
            overlay_file.kernel_name(4).encode(), overlay_file.kernel_name(4, LEAN).encode()
        )
    )


def other_peano(m: Machine, version: str) -> None:
    no_overlay(m)
    (old,) = m.path(PACKAGES).glob("llvm_aie-*")
    old.rename(old.with_name(f"llvm_aie-{version}.dist-info"))


def bad_peano(m: Machine) -> None:
    other_peano(m, "21.0.0.2026062401+fdf257de")


def no_compiler(m: Machine) -> None:
    no_overlay(m)
    m.remove(f"{PACKAGES}/mlir_aie")


def peano_not_named(m: Machine) -> None:
    no_overlay(m)
    m.system = dataclasses.replace(m.system, environment={"PATH": "/usr/bin"})


def no_peano(m: Machine) -> None:
    peano_not_named(m)
    m.remove(f"{PACKAGES}/llvm-aie")


def wrong_peano(m: Machine) -> None:
    no_overlay(m)
    m.remove(f"{PACKAGES}/llvm-aie/bin")


def no_xclbinutil(m: Machine) -> None:
    no_overlay(m)
    m.remove("/usr/bin/xclbinutil")


def no_host_compiler(m: Machine) -> None:
    m.remove("/usr/bin/g++")


def powersaver(m: Machine) -> None:
    m.facts = dataclasses.replace(DRIVER, power_mode="powersaver")


STATES: list[tuple[Callable[[Machine], None], str, str, str, str]] = [
    (no_device, "chip", "problem", "no AMD NPU", "BIOS"),
    (xdna2, "chip", "problem", "XDNA2 (Strix, Strix Halo or Krackan", "emulator"),
    (not_bound, "kernel driver", "problem", "did not take the chip", "dmesg"),
    (vfio, "kernel driver", "problem", "bound to 'vfio-pci'", "modprobe amdxdna"),
    (not_loaded, "kernel driver", "problem", "not loaded", "modprobe amdxdna"),
    (old_kernel, "kernel driver", "problem", "kernel 6.12.41-amd64 has no amdxdna", "from 6.14 on"),
    (
        kernel_without,
        "kernel driver",
        "problem",
        "kernel 6.16.3-amd64 has no amdxdna",
        "extra kernel modules",
    ),
    (no_node, "device node", "problem", "no /dev/accel/accel0", "udevadm"),
    (in_container, "device node", "problem", "docker container", "--device /dev/accel/accel0"),
    (not_in_group, "permission", "problem", "group render", "usermod -aG render"),
    (container_user, "permission", "problem", "in the container", "--group-add"),
    (little_memlock, "locked memory", "problem", "only 8,192 KB", "limits.conf"),
    (container_memlock, "locked memory", "problem", "only 8,192 KB", "--ulimit memlock=-1"),
    (some_memlock, "locked memory", "warning", "128 MB", "limits.conf"),
    (old_firmware, "firmware", "warning", "1.5.2.380", "firmware-amd-graphics"),
    (no_firmware, "firmware", "problem", "npu.sbin", "firmware-amd-graphics"),
    (firmware_in_a_file, "firmware", "warning", "does not say which version runs", "dmesg"),
    (unreadable_limit, "locked memory", "warning", "can't be read", "ulimit -l"),
    (no_xrt, "XRT", "problem", "not installed", "libxrt-npu2"),
    (no_plugin, "XRT", "problem", "2.25.00 has no amdxdna plug-in", "libxrt-npu2"),
    (mixed_xrt, "XRT", "problem", "2.25.00 with an amdxdna plug-in for 2.21.75", "same version"),
    (no_pyxrt, "pyxrt", "problem", "not installed", "python3-xrt"),
    (other_python, "pyxrt", "problem", "built for Python 3.13", "python3.13"),
    (x_ray_tracer, "pyxrt", "problem", "X-ray tracer", "trixie-backports"),
    (all_contexts, "free contexts", "problem", "llm-server (pid 4711)", "end one"),
    (dead_driver, "free contexts", "problem", "Input/output error", "modprobe -r"),
    (no_overlay, "overlay", "problem", "does not exist", "build-overlay"),
    (truncated_overlay, "overlay", "problem", "damaged", "build-overlay"),
    (old_overlay, "overlay", "problem", "another version", "build-overlay"),
    (reduced_overlay, "overlay", "warning", "without softmax, gelu, add, which run eager", "build-overlay"),
    (
        bad_peano,
        "overlay compiler",
        "problem",
        "argument of a call after the call",
        "install Peano 20.0.0.2026",
    ),
    (no_compiler, "overlay compiler", "problem", "no mlir-aie", "mlir_aie wheel"),
    (peano_not_named, "overlay compiler", "problem", "no Peano", f"export PEANO_INSTALL_DIR={PACKAGES}"),
    (no_peano, "overlay compiler", "problem", "no Peano", "install the llvm-aie wheel"),
    (wrong_peano, "overlay compiler", "problem", "no Peano in PEANO_INSTALL_DIR", "no bin/clang++"),
    (no_xclbinutil, "overlay compiler", "problem", "no xclbinutil", "libxrt-utils"),
    (no_host_compiler, "C++ compiler", "warning", "cost the CPU more", "apt install g++"),
    (
        powersaver,
        "power mode",
        "warning",
        "powersaver; the array's clock is now 800 MHz",
        "--pmode performance",
    ),
]


@pytest.mark.parametrize(
    ("change", "name", "status", "says", "remedy"), STATES, ids=lambda x: getattr(x, "__name__", "")
)
def test_state(machine: Machine, change: Callable, name: str, status: str, says: str, remedy: str) -> None:
    change(machine)
    checks = machine.diagnose()
    check = next(c for c in checks if c.name == name)
    assert check.status == status and says in check.says and remedy in check.remedy, check
    assert usable(checks) == (status == "warning")
    assert all("\n" not in c.says + c.remedy for c in checks)
    before = checks[: checks.index(check)]
    if name != "overlay compiler":  # needs a missing overlay to matter
        assert all(c.status == "ok" for c in before), "the first bad line is the cause"


def test_a_compiler_of_another_place(machine: Machine) -> None:
    no_host_compiler(machine)
    machine.system = dataclasses.replace(machine.system, environment={**ENVIRONMENT, "CXX": "/opt/bin/c++"})
    assert next(c for c in machine.diagnose() if c.name == "C++ compiler").status == "warning"
    machine.write("/opt/bin/c++", "")
    found = next(c for c in machine.diagnose() if c.name == "C++ compiler")
    assert (found.status, found.says) == ("ok", "/opt/bin/c++")


@pytest.mark.parametrize("device", XDNA2)
def test_every_xdna2_is_refused_politely(machine: Machine, device: str) -> None:
    machine.write(f"{machine.pci}/device", device)
    chip = machine.diagnose()[0]
    assert chip.status == "problem" and "XDNA2" in chip.says and device[2:] in chip.says


def test_a_process_that_may_lock_memory_needs_no_limit(machine: Machine) -> None:
    little_memlock(machine)
    machine.write("/proc/self/status", "CapEff:\t0000000000004000")
    assert usable(machine.diagnose())


def test_users_of_the_chip_are_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.write("/proc/4711/comm", "llm-server")
    machine.path("/proc/4711/fd").mkdir()
    machine.path("/proc/4711/fd/3").symlink_to("/dev/accel/accel0")
    assert device_users(machine.system) == [(4711, "llm-server")]
    machine.facts = dataclasses.replace(DRIVER, contexts=(4711, 4711))
    check = next(c for c in machine.diagnose() if c.name == "free contexts")
    assert (check.status, check.says) == ("ok", "4 of 6 free, the others held by llm-server (pid 4711)")
    monkeypatch.setattr(system, "System", lambda: machine.system)
    assert context._holders(0) == "they could be held by llm-server (pid 4711)"


@pytest.mark.parametrize("change", [None, powersaver, no_device], ids=["usable", "slow", "no device"])
def test_exit_code_tells_usable_or_not(machine: Machine, monkeypatch: pytest.MonkeyPatch, change) -> None:
    if change:
        change(machine)
    monkeypatch.setattr("torch_xdna.cli.doctor.diagnose", lambda **_: machine.diagnose())
    is_usable = change is not no_device
    text, as_json = (CliRunner().invoke(command, args) for args in ([], ["--json"]))
    assert text.exit_code == as_json.exit_code == (0 if is_usable else 1)
    assert json.loads(as_json.stdout)["usable"] is is_usable
    assert ("The NPU is usable" in text.stdout) is is_usable


@pytest.mark.parametrize("version", ["23.0.0.2027010101+abc", "19.0.0.2025071101+b3cd09d3"])
def test_an_unknown_compiler_is_a_warning(machine: Machine, version: str) -> None:
    other_peano(machine, version)
    (check,) = (c for c in machine.diagnose() if c.name == "overlay compiler")
    assert check.status == "warning" and f"Peano {version} is none of the versions" in check.says
    assert RECOMMENDED[PEANO] in check.remedy


def test_doctor_names_the_versions(machine: Machine) -> None:
    (check,) = (c for c in machine.diagnose() if c.name == "overlay compiler")
    assert all(version in check.says for version in RECOMMENDED.values())


def test_compiler_is_not_needed_with_an_overlay(machine: Machine) -> None:
    machine.remove(f"{PACKAGES}/mlir_aie")
    assert usable(machine.diagnose())


def test_a_container_is_told_only_the_flags_that_miss(machine: Machine) -> None:
    flags = {"--device": in_container, "--group-add": container_user, "--ulimit": container_memlock}
    for own, change in flags.items():
        again = Machine(machine.root / own)
        change(again)
        (remedy,) = (c.remedy for c in again.diagnose() if c.status == "problem")
        said = {flag for flag in flags if flag in remedy}
        assert said == ({"--device", "--group-add"} if own == "--device" else {own})


def test_group_of_the_node_is_named(machine: Machine) -> None:
    machine.write("/etc/group", f"npu:x:{os.getgid()}:\n")
    not_in_group(machine)
    check = next(c for c in machine.diagnose() if c.name == "permission")
    assert "usermod -aG npu" in check.remedy


def test_command_line_here() -> None:
    """On this machine, whatever it is: exit code and JSON agree with each other and with the text."""
    as_json = CliRunner().invoke(command, ["--json"])
    found = json.loads(as_json.stdout)
    assert as_json.exit_code == (0 if found["usable"] else 1)
    assert set(found["checks"][0]) == {"name", "status", "says", "remedy"}
    as_text = CliRunner().invoke(command, [])
    assert as_text.exit_code == as_json.exit_code
    for check in found["checks"]:
        assert f"{check['status']:8} {check['name']:17} {check['says']}\n" in as_text.stdout


def test_sandbox(sandbox, overlay_file: str) -> None:
    """The stand-in driver answers real ioctls: clocks, firmware, and everything up to the overlay is
    found."""
    found = sandbox.call("ask_driver:facts", xclbin=overlay_file)
    assert found["clocks_mhz"] == [400, 800] and found["firmware"] == "1.5.5.391"
    assert found["power_mode"] == "default" and found["error"] is None
    assert found["statuses"]["pyxrt"] == "ok" and found["statuses"]["overlay"] == "ok"


def test_sandbox_counts_contexts(sandbox, overlay_file: str) -> None:
    """The contexts that the driver counts, with the process that holds them."""
    assert sandbox.call("ask_driver:own_contexts", xclbin=overlay_file) == [0, 1]
