"""TORCH_XDNA_DUMP=FOLDER: every stage of every compile as a file, the bundle to attach to a bug report.

    FOLDER/0000-encoder/ 0_dynamo.txt 1_aten.txt 2_report.txt 3_region.txt 4_steps.txt 5_streams.txt
                         6_program.txt 7_words.bin

A second region of a graph is `3_region.1.txt` and so on, a second dispatch `7_words.0.1.bin`. Names and shapes are in
it, no weights and no inputs. What a region becomes on the NPU is written whatever the device is; where it can't be
lowered the file says why. `TORCH_LOGS="torch_xdna"` logs each report, `TORCH_LOGS="+torch_xdna"` each stage.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import warnings
from pathlib import Path

from torch import fx

from torch_xdna.errors import XdnaError
from torch_xdna.lowering import Program, listing, lower
from torch_xdna.lowering.buffers import Forms
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.ops import Region
from torch_xdna.lowering.pipeline import steps_and_streams
from torch_xdna.lowering.streams.step_streams import PATHS
from torch_xdna.report import GraphReport, Report
from torch_xdna.settings import Settings

VARIABLE = "TORCH_XDNA_DUMP"
REMEDY = f"set {VARIABLE}=FOLDER, run again, and attach the folder to a bug report (it holds no weights and no inputs)"

_LOG = logging.getLogger("torch_xdna")
_NUMBERS = itertools.count()
_WARNED: set[str] = set()


class InternalError(XdnaError):
    """A fault of this package, on a graph that it should have compiled or refused."""

    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(
            f"{stage} failed ({type(cause).__name__}: {cause}), which is a fault of torch-xdna: {REMEDY}; "
            "meanwhile leave the module uncompiled"
        )


class Dump:
    """The files of one compile; does nothing but log if the variable is not set. Nothing is ever raised: a folder that
    can't be written is warned about once."""

    def __init__(self, name: str) -> None:
        root = os.environ.get(VARIABLE)
        label = re.sub(r"[^\w.-]+", "_", name)[:80]
        self.folder = Path(root).expanduser() / f"{next(_NUMBERS):04d}-{label}" if root else None

    @property
    def wanted(self) -> bool:
        """Whether anybody reads what is written."""
        return self.folder is not None or _LOG.isEnabledFor(logging.DEBUG)

    def graph(self, stage: str, gm: fx.GraphModule) -> None:
        """A graph of torch as readable code."""
        if self.wanted:
            self.text(stage, gm.print_readable(print_output=False))

    def compiled(self, graph: GraphReport, settings: Settings) -> None:
        """Stages 2 to 7, lowered with the options of the compile."""
        if self.wanted or _LOG.isEnabledFor(logging.INFO):
            self.text("2_report", str(Report([graph])))
        if self.wanted:
            self.regions(graph.regions, settings)

    def regions(self, regions: tuple[Region, ...], settings: Settings) -> None:
        """Stages 3 to 7 of each region."""
        columns, iterated = settings.columns, settings.iterated
        for number, region in enumerate(regions):
            end = f".{number}" if number else ""
            self.text(f"3_region{end}", str(region))
            try:
                forms = (Forms(iterated=iterated),) * len(PATHS)
                planned, _, all_streams = steps_and_streams(region, columns, forms)
                self.text(f"4_steps{end}", listing.steps_text(planned))
                self.text(f"5_streams{end}", listing.streams_text(planned, all_streams))
                self._program(lower(region, columns=columns, iterated=iterated, split=settings.split), end)
            except LoweringError as error:
                self.text(f"6_program{end}", f"not lowered: {error}")
            except Exception as error:  # a fault of lowering is what the dump may be for
                self.text(f"6_program{end}", f"not lowered: {type(error).__name__}: {error}")

    def _program(self, program: Program, end: str) -> None:
        self.text(f"6_program{end}", listing.text(program))
        for number, words in enumerate(program.dispatches):
            part = f"{end or '.0'}.{number}" if number else end
            self._write(f"7_words{part}.bin", words.astype("<u4").tobytes())

    def text(self, stage: str, text: str) -> None:
        """A stage that is text."""
        _LOG.log(logging.INFO if stage.startswith("2_") else logging.DEBUG, "%s\n%s", stage, text)
        self._write(f"{stage}.txt", (text.rstrip() + "\n").encode())

    def _write(self, name: str, content: bytes) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            whole = self.folder / name
            part = whole.with_name(f".{name}.part")
            part.write_bytes(content)
            part.replace(whole)
        except OSError as error:
            reason = (
                f"{VARIABLE}: '{self.folder}' can't be written ({error.strerror}); name a folder that can"
            )
            if reason not in _WARNED:
                _WARNED.add(reason)
                warnings.warn(f"xdna: {reason}", stacklevel=2)
