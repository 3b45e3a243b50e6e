"""Which versions of mlir-aie and Peano to build the overlay with: one table, read by `build-overlay`, `doctor` and the
README's test.

Nothing here was measured by this project, which has neither Peano nor an NPU; each row names who saw what.

Design notes:
- The recommended pair is the cautious one. mlir-aie 1.3.4 built a bf16 Whisper encoder that others measured on a
  Phoenix, and is of the time of the passes that our tests run on the overlay (April 2026, before the FIFO lowering was
  written anew). Peano of 20 March 2026 is older than every miscompilation below, and 27 of 27 whole-array products ran
  right on a Phoenix with it: int8 ones, where later versions are wrong. Each of the two was measured; the two together
  were not, so far as we know.
- Peano 22.0.0.2026092101 has the faster kernels of mlir-aie's own traces on this chip. It folds immediates (unless told
  not to, see `kernels_xdna1.peano_build`), so it is `good` and not the choice for a first run.
- Versions are compared by Peano's nightly number (year, month, day, count), which its version ends in, because the
  major number says little: 20, 21 and 22 all appeared in 2026.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MLIR_AIE, PEANO = "mlir-aie", "Peano"
PACKAGES = {MLIR_AIE: "mlir_aie", PEANO: "llvm_aie"}  # names of their wheels' metadata
RECOMMENDED = {MLIR_AIE: "1.3.4", PEANO: "20.0.0.2026032001+0e7cfc0e"}
RELEASES = {
    MLIR_AIE: "https://github.com/Xilinx/mlir-aie/releases",
    PEANO: "https://github.com/Xilinx/llvm-aie/releases",
}
FOLDS_IMMEDIATES_SINCE = 2026060500
"""Nightlies from here on may read a bf16 broadcast two cycles early unless `-aie-disable-fold-imm` is given
(Xilinx/llvm-aie PR 1009 brought it, PR 1038 and Xilinx/mlir-air PR 1684 describe what it breaks on npu1)."""


@dataclass(frozen=True)
class Known:
    """Versions `first` to `last` (inclusive, as `number` makes them) of a tool. `status`: recommended, good, bad."""

    tool: str
    first: tuple[int, ...]
    last: tuple[int, ...]
    status: str
    reason: str
    source: str


@dataclass(frozen=True)
class Verdict:
    """About an installed version. `status`: recommended, good, bad, unknown; `sentence` is for people."""

    tool: str
    version: str
    status: str
    reason: str
    source: str = ""

    @property
    def remedy(self) -> str:
        return f"install {self.tool} {RECOMMENDED[self.tool]} from {RELEASES[self.tool]}"

    @property
    def sentence(self) -> str:
        seen = f" ({self.source})" if self.source else ""
        text = f"{self.tool} {self.version} {self.reason}{seen}"
        return text if self.status in ("recommended", "good") else f"{text}: {self.remedy}"


_LAST = 9999

TABLE = (
    Known(
        MLIR_AIE, (1, 3, 4), (1, 3, 4), "recommended",
        "built a Whisper encoder that was measured on a Phoenix", "drakosha/whisper-xdna",
    ),
    Known(
        MLIR_AIE, (1, 4, 2), (1, 4, 2), "good",
        "built an engine that was measured on an 8700G", "jdominick05/ignite-xdna",
    ),
    Known(
        MLIR_AIE, (1,), (1, 2, _LAST), "bad",
        "is too old, its options and its FIFOs are not those that the overlay is written for", "its releases",
    ),
    Known(
        PEANO, (2026032001,), (2026032001,), "recommended",
        "computed 27 of 27 whole-array int8 products right on a Phoenix, and is older than the folding of immediates",
        "Xilinx/mlir-aie issue 2388",
    ),
    Known(
        PEANO, (2026062301,), (2026062301,), "good",
        "is the last one before loads of arguments went into delay slots", "Xilinx/mlir-aie PR 3221",
    ),
    Known(
        PEANO, (2026062400,), (2026070799,), "bad",
        "may load the argument of a call after the call: silent wrong numbers",
        "Xilinx/llvm-aie issues 1053 and 1056, mended by PR 1069",
    ),
    Known(
        PEANO, (2026082101,), (2026082101,), "bad",
        "miscompiles a loop of products with table look-ups at -O2, which GELU is",
        "Xilinx/llvm-aie issue 1262, seen on AIE2P",
    ),
    Known(
        PEANO, (2026092101,), (2026092101,), "good",
        "compiled the kernels that mlir-aie traced on this chip", "Xilinx/mlir-aie skills/",
    ),
)  # fmt: skip


def judge(tool: str, version: str) -> Verdict:
    """What is known of a version. `version`: as its wheel's metadata says, or "unknown"."""
    key = number(tool, version)
    if not key:
        return Verdict(
            tool, version, "unknown", "does not tell which version it is, so nothing is known of it"
        )
    for row in TABLE:
        if row.tool == tool and row.first <= key <= row.last:
            return Verdict(tool, version, row.status, row.reason, row.source)
    return Verdict(tool, version, "unknown", "is none of the versions that others measured on this chip")


def number(tool: str, version: str) -> tuple[int, ...]:
    """What versions of a tool are compared by; empty where that can't be told. mlir-aie's nightlies, all of them
    numbered 0.0.1, compare as none of its releases."""
    if tool == PEANO:
        found = re.search(r"\b(20\d{8})\b", version)
        return (int(found[1]),) if found else ()
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(n or 0) for n in found.groups()) if found else ()


def may_fold_immediates(version: str) -> bool:
    """Whether a Peano may fold immediates unless it is told not to. One that tells no version may."""
    key = number(PEANO, version)
    return not key or key[0] >= FOLDS_IMMEDIATES_SINCE


def installed_version(folder: Path, tool: str) -> str:
    """The version of a wheel whose metadata lie in `folder`, "unknown" if there are none or several."""
    name = PACKAGES[tool]
    versions = {
        path.name.removeprefix(f"{name}-").removesuffix(".dist-info")
        for path in folder.glob(f"{name}-*.dist-info")
    }
    return versions.pop() if len(versions) == 1 else "unknown"
