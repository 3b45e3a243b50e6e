"""What was built, beside the xclbin: `overlay.xclbin.json`. The backend, `explain` and `doctor` read it.

`ops` is what the overlay can do. `sizes` are bytes per linked core, read from its ELF file. `sha256` is the xclbin's:
a manifest beside another file says nothing about it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Manifest:
    """`key`: hash of all that decides what is built. `notes`: what people should know, e.g. rungs that did not fit."""

    key: str
    sha256: str
    columns: int
    kernel: str
    variant: str
    ops: tuple[str, ...]
    kernels: tuple[str, ...]
    versions: dict[str, str]
    flags: tuple[str, ...]
    small: tuple[str, ...] = ()
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @property
    def summary(self) -> str:
        """Half a sentence for people: versions and the fullest core."""
        versions = ", ".join(f"{tool} {version}" for tool, version in self.versions.items())
        if not self.sizes:
            return f"built with {versions}, {' '.join(self.flags)}; sizes not known"
        core, size = max(self.sizes.items(), key=lambda item: item[1]["code"])
        return f"built with {versions}, {' '.join(self.flags)}; {size['code']} bytes of program in {core}"


def path_of(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def read(target: Path) -> Manifest | None:
    """The manifest of an xclbin, None if there is none or if it is another file's, or unreadable."""
    try:
        found: dict[str, Any] = json.loads(path_of(target).read_text())
        fields: dict[str, Any] = {
            name: tuple(found[name]) if isinstance(found[name], list) else found[name]
            for name in Manifest.__dataclass_fields__
        }
        manifest = Manifest(**fields)
        return manifest if manifest.sha256 == digest(target) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
