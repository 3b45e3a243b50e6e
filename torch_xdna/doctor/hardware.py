"""Chip, kernel driver, device node, who may open it, memory limit, firmware, contexts, clock."""

from __future__ import annotations

import re

from torch_xdna.devices.npu.machine import device_users
from torch_xdna.doctor.check import XDNA1, Check, Findings, needs, npus
from torch_xdna.doctor.driver import POWER_MODES

XDNA2 = {
    "0x17f0": "Strix, Strix Halo or Krackan",
    "0x17f1": "of the XDNA2 family",
    "0x17f2": "of the XDNA2 family",
    "0x17f3": "of the XDNA2 family",
    "0x1b0a": "of the XDNA2 family",
    "0x1b0b": "of the XDNA2 family",
    "0x1b0c": "of the XDNA2 family",
}
FIRST_KERNEL = (6, 14)  # the first with amdxdna in the tree
HEAP_BYTES = 64 << 20  # locked by the first buffer
KNOWN_FIRMWARE = "1.5.5.391"
CONTEXTS = 6  # four on some drivers
# what `docker run` and `podman run` need
GROUP_FLAG = "--group-add $(getent group render | cut -d: -f3)"
DEVICE_FLAGS = f"--device /dev/accel/accel0 {GROUP_FLAG}"
MEMORY_FLAG = "--ulimit memlock=-1"
_CAP_IPC_LOCK = 14


def chip(findings: Findings) -> Check:
    """Supported chip, by PCI id."""
    ids = [device for _, device in npus(findings.system)]
    for device in ids:
        if device in XDNA1:
            return Check(
                "chip", "ok", f"AMD NPU of the first generation ({XDNA1[device]}, PCI 1022:{device[2:]})"
            )
    for device in ids:
        if device in XDNA2:
            return Check(
                "chip",
                "problem",
                f"this NPU is an XDNA2 ({XDNA2[device]}, PCI 1022:{device[2:]}), which has another array",
                'this package is for XDNA1; device="emulator" works everywhere',
            )
    return Check(
        "chip",
        "problem",
        "no AMD NPU on the PCI bus",
        'on a Ryzen 7x40 or 8x40 turn the NPU (IPU) on in the BIOS; elsewhere use device="emulator"',
    )


def kernel_driver(findings: Findings) -> Check:
    """amdxdna loaded and bound to the chip, with its version."""
    name, system = "kernel driver", findings.system
    if blocked := needs(findings, name, "chip"):
        return blocked
    assert findings.pci is not None
    release = system.read("/proc/sys/kernel/osrelease") or "?"
    version = system.read("/sys/module/amdxdna/version")
    bound = (findings.pci / "driver").resolve().name if (findings.pci / "driver").exists() else None
    if bound == "amdxdna":
        return Check(name, "ok", f"amdxdna {version or f'of kernel {release}'} drives the chip")
    if bound:
        return Check(
            name,
            "problem",
            f"the chip is bound to '{bound}'",
            f"unbind it and `sudo modprobe amdxdna` ({bound})",
        )
    if system.path("/sys/module/amdxdna").exists():
        return Check(
            name,
            "problem",
            "amdxdna is loaded but did not take the chip",
            "look for its reason with `sudo dmesg | grep -i amdxdna` (IOMMU off, or firmware missing)",
        )
    if system.glob(f"/lib/modules/{release}/**/amdxdna.ko*"):
        return Check(name, "problem", "amdxdna is installed but not loaded", "`sudo modprobe amdxdna`")
    numbers = tuple(int(n) for n in re.findall(r"\d+", release)[:2])
    remedy = (
        "install a kernel from 6.14 on (Debian 13: `sudo apt install -t trixie-backports linux-image-amd64`)"
    )
    if numbers >= FIRST_KERNEL:
        remedy = "install your distribution's package of extra kernel modules (they hold amdxdna)"
    return Check(name, "problem", f"kernel {release} has no amdxdna module", remedy)


def device_node(findings: Findings) -> Check:
    """/dev/accel/accelN present."""
    name, system = "device node", findings.system
    if blocked := needs(findings, name, "chip", "kernel driver"):
        return blocked
    if findings.node and system.path(findings.node).exists():
        return Check(name, "ok", findings.node)
    if system.container:
        says = f"no {findings.node or '/dev/accel/accel0'} in this {system.container} container"
        return Check(name, "problem", says, f"start the container with {DEVICE_FLAGS}")
    return Check(
        name,
        "problem",
        f"no {findings.node or '/dev/accel/accel0'}",
        "`sudo udevadm trigger`, then reboot",
    )


def permission(findings: Findings) -> Check:
    """This user may open the node."""
    name, system = "permission", findings.system
    if blocked := needs(findings, name, "device node"):
        return blocked
    assert findings.node is not None
    if system.may_open(findings.node):
        return Check(name, "ok", f"this user may open {findings.node}")
    group = system.group_of(findings.node)
    if system.container:
        says = f"this user may not open {findings.node} in the container"
        return Check(name, "problem", says, f"start the container with {GROUP_FLAG}")
    return Check(
        name,
        "problem",
        f"this user may not open {findings.node} (group {group})",
        f"`sudo usermod -aG {group} $USER`, then log in anew",
    )


def locked_memory(findings: Findings) -> Check:
    """The limit of locked memory: the first buffer locks 64 MB."""
    name, system = "locked memory", findings.system
    limit = re.search(r"^Max locked memory\s+(\S+)", system.read("/proc/self/limits") or "", re.MULTILINE)
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)", system.read("/proc/self/status") or "", re.MULTILINE)
    if capabilities and int(capabilities[1], 16) >> _CAP_IPC_LOCK & 1:
        return Check(name, "ok", "this process may lock any amount of memory (CAP_IPC_LOCK)")
    if limit is None:
        return Check(
            name, "warning", "the limit of locked memory can't be read", "`ulimit -l` should say unlimited"
        )
    if limit[1] == "unlimited":
        return Check(name, "ok", "no limit of locked memory")
    size = int(limit[1])
    remedy = (
        f"start the container with {MEMORY_FLAG}"
        if system.container
        else "add `* - memlock unlimited` to /etc/security/limits.conf, then log in anew"
    )
    if size < HEAP_BYTES:
        return Check(
            name, "problem", f"only {size >> 10:,} KB of memory may be locked, the NPU needs 64 MB", remedy
        )
    return Check(
        name, "warning", f"{size >> 20:,} MB of memory may be locked; a large model can need more", remedy
    )


def firmware(findings: Findings) -> Check:
    """The version that runs on the chip, else the file that would be loaded."""
    name, system = "firmware", findings.system
    if blocked := needs(findings, name, "chip"):
        return blocked
    assert findings.pci is not None
    file = findings.pci / "fw_version"
    running = file.read_text().strip() if file.is_file() else findings.driver.firmware
    if running:
        older = _numbers(running) < _numbers(KNOWN_FIRMWARE)
        remedy = (
            f"update linux-firmware (Debian: firmware-amd-graphics) to at least {KNOWN_FIRMWARE}"
            if older
            else ""
        )
        return Check(name, "warning" if older else "ok", f"version {running} runs", remedy)
    if system.glob("/lib/firmware/amdnpu/1502_00/npu.sbin*"):
        return Check(
            name,
            "warning",
            "installed; the driver does not say which version runs",
            "`sudo dmesg | grep amdxdna`",
        )
    return Check(
        name,
        "problem",
        "no firmware file amdnpu/1502_00/npu.sbin",
        "install linux-firmware (Debian: `sudo apt install firmware-amd-graphics` from non-free-firmware)",
    )


def free_contexts(findings: Findings) -> Check:
    """Hardware contexts left; who holds the others."""
    name, system = "free contexts", findings.system
    if blocked := needs(findings, name, "permission"):
        return blocked
    if findings.driver.error:
        says = f"{findings.node} does not open: {findings.driver.error}"
        return Check(
            name, "problem", says, "reload the driver: `sudo modprobe -r amdxdna && sudo modprobe amdxdna`"
        )
    names = dict(device_users(system))
    users = ", ".join(f"{n} (pid {p})" for p, n in names.items()) or "no other process that this user may see"
    pids = findings.driver.contexts
    if not pids:
        return Check(name, "ok", f"the NPU answers; it is open in {users}")
    held = ", ".join(
        sorted({f"{names.get(p) or system.read(f'/proc/{p}/comm') or '?'} (pid {p})" for p in pids})
    )
    if len(pids) >= CONTEXTS:
        return Check(
            name, "problem", f"all {CONTEXTS} contexts are in use by {held}", "end one of these programs"
        )
    return Check(name, "ok", f"{CONTEXTS - len(pids)} of {CONTEXTS} free, the others held by {held}")


def power(findings: Findings) -> Check:
    """Power mode and clock: both decide how fast the array is."""
    name = "power mode"
    if blocked := needs(findings, name, "permission"):
        return blocked
    mode, clocks = findings.driver.power_mode, findings.driver.clocks_mhz
    clock = (
        f"the array's clock is now {clocks[1]} MHz (400/800 when idle)"
        if clocks
        else "the driver tells no clock"
    )
    if mode == POWER_MODES[1]:
        return Check(name, "warning", f"powersaver; {clock}", "`sudo xrt-smi configure --pmode performance`")
    return Check(name, "ok", f"{mode or 'mode not told'}; {clock}")


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)]
