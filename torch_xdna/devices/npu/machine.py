"""What the machine says about itself, as plain files: /sys, /proc, /dev, /lib, below a root that tests can
replace."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class System:
    """A machine: the root of its file system, and who asks: a user with an environment and an interpreter.

    `python_tag` is like cpython-313-x86_64-linux-gnu, `python_path` are the interpreter's folders of
    packages.
    """

    root: Path = Path("/")
    uid: int = field(default_factory=os.geteuid)
    groups: frozenset[int] = field(default_factory=lambda: frozenset({os.getegid(), *os.getgroups()}))
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    python_tag: str = field(default_factory=lambda: str(sysconfig.get_config_var("SOABI")))
    python_path: tuple[str, ...] = field(default_factory=lambda: tuple(p for p in sys.path if p))

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

    def may_open(self, node: str) -> bool:
        """Whether the user may read and write a device node. On the real root the kernel is asked, because
        access lists count too; elsewhere owner, group and mode decide."""
        path = self.path(node)
        if self.root == Path("/"):
            return os.access(path, os.R_OK | os.W_OK)
        s = path.stat()
        bits = s.st_mode >> (6 if s.st_uid == self.uid else 3 if s.st_gid in self.groups else 0)
        return self.uid == 0 or bits & 6 == 6

    def group_of(self, node: str) -> str:
        """The name of the node's group, from this root's /etc/group."""
        gid = str(self.path(node).stat().st_gid)
        entries = [line.split(":") for line in (self.read("/etc/group") or "").splitlines()]
        return next((e[0] for e in entries if len(e) > 2 and e[2] == gid), "render")

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
