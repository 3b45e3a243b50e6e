"""The passes that mlir-aie's driver `aiecc` runs on the overlay's text, as two of its versions list them.

`APRIL` is the driver of spring 2026 (mlir-aie 1.3; `tools/aiecc/aiecc.cpp`), `AUGUST` the one of 14 August 2026 (the
declarative driver of the 1.4 line; `tools/aiecc/IRTransforms.h`). The whole way from our text to the hardware, with
what tests do about each step, is in AIECC_STEPS.md; a test holds its tables to these lists.

Written from the drivers' sources. `APRIL` was run; `AUGUST` was not run by the tests' authors in this form.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

# A pass, or passes of one device as a tuple.
Step = str | tuple[str, ...]
VECTORS, INTRINSICS = "convert-vector-to-aievec", "convert-aievec-to-llvm"
# What an aie-opt that was built without its vector passes runs for `VECTORS`: those of its passes that touch more than
# vectors, in their order. The overlay has no vectors; these move its constants.
IN_PLACE_OF_VECTORS = ("canonicalize", "cse", "loop-invariant-code-motion", "canonicalize")


@dataclass(frozen=True)
class Driver:
    """`resources`: from the text to buffers, locks, descriptors and routes. `sequence`: a runtime sequence to NPU
    commands. `core`: one core of the former's result to the LLVM dialect."""

    resources: tuple[Step, ...]
    sequence: tuple[Step, ...]
    core: tuple[Step, ...]


_SPRING_FIFOS = (
    "aie-register-objectFifos",
    "aie-objectFifo-stateful-transform{dynamic-objFifos=false packet-sw-objFifos=false}",
)
_SUMMER_FIFOS = (
    "aie-objectFifo-stateful-transform{packet-sw-objFifos=false}",
    "aie-objectFifo-unroll{default-dynamic=true}",
)
_TILES = (
    "aie-assign-bd-ids",
    "aie-lower-cascade-flows",
    "aie-lower-broadcast-packet",
    "aie-lower-multicast",
    "aie-assign-tile-controller-ids",
)
_TOKEN_ROUTES = "aie-generate-column-control-overlay{route-shim-to-tile-ctrl=false}"
_MEMORY = (
    "aie-assign-buffer-addresses{alloc-scheme=basic-sequential}",
    "aie-assign-core-link-files",
    "aie-vector-transfer-lowering",
)
_CORE: tuple[Step, ...] = (
    ("aie-localize-locks", "aie-normalize-address-spaces", "aie-transform-bfp-types"),
    "aie-standard-lowering{tilecol=COLUMN tilerow=ROW}",
    "aiex-standard-lowering",
    f"{INTRINSICS}{{aie-target=aie2}}",
    "canonicalize",
    "cse",
    "expand-strided-metadata",
    "lower-affine",
    "arith-expand",
    "finalize-memref-to-llvm",
    "convert-func-to-llvm{use-bare-ptr-memref-call-conv=true}",
    "convert-to-llvm{dynamic=true}",
    "convert-vector-to-llvm",
    "convert-ub-to-llvm",
    "canonicalize",
    "cse",
)

APRIL = Driver(
    resources=(
        f"{VECTORS}{{aie-target=aie2 target-backend=llvmir}}",
        "lower-affine",
        "aie-canonicalize-device",
        ("aie-assign-lock-ids", *_SPRING_FIFOS, *_TILES, _TOKEN_ROUTES, *_MEMORY),
        "convert-scf-to-cf",
        ("aie-create-pathfinder-flows",),
    ),
    sequence=(
        "aie-materialize-runtime-sequences",
        (
            "aie-materialize-bd-chains",
            "aie-substitute-shim-dma-allocations",
            "aie-assign-runtime-sequence-bd-ids",
            "canonicalize",
            "aie-dma-tasks-to-npu",
            "aie-dma-to-npu",
            "aie-lower-set-lock",
        ),
    ),
    core=_CORE,
)
AUGUST = Driver(
    resources=(
        ("aie-place-tiles",),
        (
            "aie-insert-trace-flows",
            "aie-trace-to-config",
            "aie-trace-pack-reg-writes",
            "aie-inline-trace-config",
        ),
        f"{VECTORS}{{aie-target=aie2}}",
        "lower-affine",
        "aie-canonicalize-device",
        "aie-lower-scratchpad-parameters",
        (*_SUMMER_FIFOS, "aie-assign-lock-ids", *_TILES),
        _TOKEN_ROUTES,
        _MEMORY,
        "aie-scf-to-control-flow",
        ("aie-create-pathfinder-flows",),
    ),
    sequence=(
        "aie-materialize-runtime-sequences",
        (
            "aie-materialize-bd-chains",
            "aie-substitute-shim-dma-allocations",
            "aie-unroll-runtime-sequence-loops",
            "canonicalize",
            "aie-decompose-large-dma-bd",
            "aie-lower-dynamic-bd-pool",
            "canonicalize",
            "aie-assign-runtime-sequence-bd-ids",
            "aie-dma-tasks-to-npu",
            "aie-lower-dma-channel-reset",
            "aie-dma-to-npu",
            "aie-lower-set-lock",
            "aie-lower-core-reset",
        ),
    ),
    core=_CORE,
)


def driver_of(known: Collection[str]) -> Driver:
    """The driver whose passes an aie-opt has, by the names that its --help lists."""
    return AUGUST if "aie-objectFifo-unroll" in known else APRIL


def names_in_help(text: str) -> set[str]:
    """Names of passes and pipelines in what `aie-opt --help` prints."""
    return set(re.findall(r"^\s*--([\w-]+)", text, re.MULTILINE))


def pipeline(steps: tuple[Step, ...], known: Collection[str]) -> str:
    """For --pass-pipeline. Vector passes that are not among `known` are replaced, or left out, as the module says."""
    parts: list[str] = []
    for step in steps:
        if isinstance(step, tuple):
            parts.append(f"aie.device({','.join(step)})")
        elif name_of(step) == VECTORS and VECTORS not in known:
            parts += IN_PLACE_OF_VECTORS
        elif name_of(step) == INTRINSICS and INTRINSICS not in known:
            continue
        else:
            parts.append(step)
    return f"builtin.module({','.join(parts)})"


def flat(steps: tuple[Step, ...]) -> list[str]:
    """Names of all passes, in order."""
    return [name_of(part) for step in steps for part in ((step,) if isinstance(step, str) else step)]


def name_of(step: str) -> str:
    """A pass without its options."""
    return step.partition("{")[0]
