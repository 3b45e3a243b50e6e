"""The overlay's file: where it is, and whether it is the one that this version of the package needs.

An xclbin carries its version in its kernel's name, `xdna1_<columns>c_<fingerprint>`: the fingerprint covers
the overlay's MLIR and the kernels' sources, so an xclbin of another version is refused before it is loaded,
and no second file can get lost. `torch-xdna build-overlay` gives that name to aiecc. Each variant
(`lowering.overlay.variants`) has a fingerprint of its own, so what an overlay can do is known from the file itself;
the manifest beside it only tells more.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import struct
from pathlib import Path

from torch_xdna.devices.npu.errors import NpuUnavailable
from torch_xdna.lowering.overlay.variants import FULL, VARIANTS, Variant

VARIABLE = "TORCH_XDNA_OVERLAY"
BUILD = "build it with `torch-xdna build-overlay`"
_MAGIC = b"xclbin2\0"
_LENGTH_AT = 304  # byte offset of the u64 file length in the container's header
_KERNEL = re.compile(rb"xdna1_([124])c_([0-9a-f]{12})")


@functools.cache
def fingerprint(columns: int, variant: Variant = FULL) -> str:
    """12 hex digits over everything that goes into the overlay: its MLIR, the kernels' sources and their macros."""
    from torch_xdna import kernels_xdna1
    from torch_xdna.lowering.overlay import overlay
    from torch_xdna.lowering.overlay.mlir import print_mlir

    digest = hashlib.sha256(print_mlir(overlay(columns, variant)).encode())
    digest.update("".join(variant.defines).encode())
    folder = Path(next(iter(kernels_xdna1.__path__))) / "kernels"
    for source in sorted(folder.rglob("*")):
        if source.suffix in (".cc", ".cpp", ".h", ".hpp"):
            digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:12]


def kernel_name(columns: int, variant: Variant = FULL) -> str:
    """The name of the one kernel in the xclbin that this version needs."""
    return f"xdna1_{columns}c_{fingerprint(columns, variant)}"


def variant_of(path: Path, *, columns: int) -> Variant:
    """What a usable xclbin can do. Raises NpuUnavailable as `check`."""
    name = check(path, columns=columns)
    return next(variant for variant in VARIANTS if kernel_name(columns, variant) == name)


def installed_variant(columns: int = 4) -> Variant:
    """What the overlay that a device would take can do; everything, if there is none that is usable."""
    try:
        return variant_of(locate(None, columns), columns=columns)
    except NpuUnavailable:
        return FULL


def cache_path(columns: int) -> Path:
    """Where `torch-xdna build-overlay` puts its result for this version."""
    from torch_xdna.kernels_xdna1.host_compiler import cache_directory

    return cache_directory() / f"{kernel_name(columns)}.xclbin"


def locate(given: str | None, columns: int) -> Path:
    """The path asked for (`overlay=PATH`, else $TORCH_XDNA_OVERLAY), else the built one."""
    return Path(given or os.environ.get(VARIABLE) or cache_path(columns))


def check(path: Path, *, columns: int) -> str:
    """The name of the kernel in a usable xclbin. Raises NpuUnavailable: missing, damaged, another version."""
    build = _remedy(path, columns)
    if not path.is_file():
        what = "is a directory, not a file" if path.is_dir() else "does not exist"
        raise NpuUnavailable(f"the overlay {path} {what}; {build}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NpuUnavailable(
            f"the overlay {path} can't be read: {error.strerror}; make it readable"
        ) from error
    if content[: len(_MAGIC)] != _MAGIC:
        raise NpuUnavailable(f"the overlay {path} is no xclbin (it does not start with xclbin2); {build}")
    length = struct.unpack_from("<Q", content, _LENGTH_AT)[0] if len(content) >= _LENGTH_AT + 8 else 0
    if length != len(content):
        raise NpuUnavailable(
            f"the overlay {path} is damaged: {len(content):,} bytes where its header says {length:,}; {build}"
        )
    found = _KERNEL.search(content)
    if found is None:
        raise NpuUnavailable(
            f"the xclbin {path} was not built by this package (no kernel xdna1_...); {build}"
        )
    name, theirs = found[0].decode(), int(found[1])
    if theirs != columns:
        raise NpuUnavailable(
            f"the overlay {path} is for {theirs} columns, {columns} are asked for; `columns={theirs}`, or "
            f"`torch-xdna build-overlay --columns {columns}`"
        )
    if name not in {kernel_name(columns, variant) for variant in VARIANTS}:
        raise NpuUnavailable(
            f"the overlay {path} is of another version ({found[2].decode()}, this one needs "
            f"{fingerprint(columns)}); "
            f"{build}"
        )
    return name


def _remedy(path: Path, columns: int) -> str:
    """What is built must also be what is used: a path that somebody named stays named."""
    if path == cache_path(columns):
        return BUILD
    if str(path) == os.environ.get(VARIABLE):
        return f"unset {VARIABLE}, which names it, and {BUILD}, or point it at another xclbin"
    return f"name another xclbin, or {BUILD} and name none"
