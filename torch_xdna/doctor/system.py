"""What the machine says about itself, as plain files: /sys, /proc, /dev, /lib, below a root that tests can
replace."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class System:
    """A machine: the root of its file system, and who asks. `python` is the asking interpreter's SOABI
    tag."""

    root: Path = Path("/")
    uid: int = field(default_factory=os.geteuid)
    groups: frozenset[int] = field(default_factory=lambda: frozenset({os.getegid(), *os.getgroups()}))

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    def read(self, absolute: str) -> str | None:
        """A file's text without surrounding space, None if it can't be read."""
        try:
            return self.path(absolute).read_text(errors="replace").strip()
        except OSError:
            return None

    def glob(self, pattern: str) -> list[Path]:
        """Paths below the root, sorted."""
        return sorted(self.root.glob(pattern.lstrip("/")))

    @property
    def container(self) -> str | None:
        """The kind of container this runs in, None on a machine itself."""
        if self.path("/run/.containerenv").exists():
            return "podman"
        if self.path("/.dockerenv").exists():
            return "docker"
        found = re.search(r"docker|lxc|kubepods|containerd", self.read("/proc/1/cgroup") or "")
        return found[0] if found else None


def device_users(system: System) -> list[tuple[int, str]]:
    """Processes (pid, name) that have the NPU's device node open, as far as this user may see; not this
    process."""
    users = []
    for entry in system.glob("/proc/[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            links = [os.readlink(link) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith("/dev/accel/") for link in links):
            users.append((int(entry.name), system.read(f"/proc/{entry.name}/comm") or "?"))
    return users
