"""Fetches and unpacks XRT, its amdxdna plug-in, pyxrt and an interpreter with numpy from Debian
trixie-backports."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
# libc and friends come along, so that the tree runs on any distribution's kernel
PACKAGES = """
    libc6 libgcc-s1 libstdc++6 libuuid1 libexpat1 zlib1g libffi8 libssl3t64 libzstd1 libcurl4t64 libelf1t64
    libprotobuf32t64 libboost-filesystem1.83.0 libboost-program-options1.83.0
    libpython3.13-minimal libpython3.13-stdlib python3.13-minimal python3-numpy libblas3 liblapack3
    libgfortran5 libxrt2/trixie-backports libxrt-npu2/trixie-backports python3-xrt/trixie-backports
    libxrt-utils/trixie-backports libxrt-utils-npu/trixie-backports linux-libc-dev/trixie-backports
""".split()  # noqa: SIM905 - a list of words reads better


class Unavailable(RuntimeError):
    """The packages can't be had here; the message says why."""


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "torch-xdna" / "tests" / "xrt"


def tree() -> Path:
    """The unpacked tree, fetched on first use (about 25 MB, 10 s); one process at a time."""
    root = cache() / "root"
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache() / "complete").exists():
            _need("apt-get", "dpkg-deb", "tar", "gcc")
            debs = _download(cache() / "apt")
            _unpack(debs, root)
            shutil.rmtree(cache() / "apt")
            (cache() / "complete").touch()
    return root


def _need(*tools: str) -> None:
    missing = [t for t in tools if not shutil.which(t)]
    if missing:
        raise Unavailable(f"no {' and no '.join(missing)} on this machine")
    if not Path(KEYRING).exists():
        raise Unavailable(f"no Debian archive key at {KEYRING} (package debian-archive-keyring)")


def _mirror() -> str:
    """The Debian mirror that this machine's own apt uses."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=False
    )
    uris = re.findall(r"^\S+/debian/?$", targets.stdout, re.MULTILINE)
    if not uris:
        raise Unavailable("apt knows no Debian mirror on this machine")
    return uris[0]


def _download(apt: Path) -> list[Path]:
    shutil.rmtree(apt, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "preferences", "debs"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    suites = "".join(
        f"deb [signed-by={KEYRING}] {_mirror()} {s} main\n" for s in ("trixie", "trixie-backports")
    )
    (apt / "sources.list").write_text(suites)
    settings = {
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": apt / "preferences",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "10",
    }
    (apt / "conf").write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    env = {**os.environ, "APT_CONFIG": str(apt / "conf")}
    for command in (["update", "--error-on=any"], ["download", *PACKAGES]):
        try:
            done = subprocess.run(
                ["apt-get", "-q", *command],
                cwd=apt / "debs",
                env=env,
                capture_output=True,
                text=True,
                timeout=120,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"apt-get {command[0]} took more than two minutes") from None
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise Unavailable(f"apt-get {command[0]} failed: {' '.join(last)}")
    return sorted((apt / "debs").glob("*.deb"))


def _unpack(debs: list[Path], root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    skip = [f"--exclude=./usr/share/{x}" for x in ("doc", "man", "locale")]
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as archive:
            untar = ["tar", "-x", "-C", root, "--keep-directory-symlink", *skip]
            subprocess.run(untar, stdin=archive.stdout, check=True)
