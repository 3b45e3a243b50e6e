"""What ran where and why: one row per op of each compiled graph, as a table, as JSON, as counts."""

from __future__ import annotations

import io
import itertools
import json
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from torch_xdna.devices.base import counted
from torch_xdna.lowering.ops import Region

if TYPE_CHECKING:
    from rich.table import Table

DEVICE, EAGER = "device", "eager"


@dataclass(frozen=True)
class Row:
    """One op of the user's graph.

    op: its ATen name; name: the module or parameter that it belongs to; shape: of its result, a symbolic
    size as a string; where: "device" or "eager" (the CPU); region: number of the region, None if eager;
    reason: why it is eager, or what became of an op that the device needs not execute; flops: multiplications and
    additions, 0 of an op that is no product.
    """

    op: str
    name: str
    shape: tuple[int | str, ...]
    dtype: str
    where: str
    region: int | None = None
    reason: str = ""
    flops: int = 0


@dataclass(frozen=True)
class GraphReport:
    """One compiled graph. `frame`: Dynamo's number of the code object, the same for each compile of it.
    `failures`: why the device failed and a region ran eager instead -> in how many calls."""

    name: str
    frame: int
    rows: tuple[Row, ...]
    regions: tuple[Region, ...] = ()
    device: str = ""
    executables: tuple[Any, ...] = ()
    failures: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def signature(self) -> tuple:
        """Equal for compiles that differ by the batch size only."""
        return (
            self.name,
            self.frame,
            self.regions,
            tuple((r.op, r.where, r.reason if r.where == EAGER else "") for r in self.rows),
            self.device,
        )


_numbers = itertools.count()


@dataclass(eq=False)
class Report:
    """What was compiled for one function or module: several compiles; several graphs if Dynamo breaks it.
    `graphs`: one GraphReport for each compile; `number`: counts reports in this process; `off`: what switches
    torch.compile off, if something does; then there are no graphs."""

    graphs: list[GraphReport] = field(default_factory=list)
    number: int = field(default_factory=lambda: next(_numbers))
    off: str = ""

    @property
    def name(self) -> str:
        """Of the module or function, for people."""
        return self.graphs[0].name if self.graphs else "nothing"

    @property
    def compiles(self) -> int:
        """How many graphs were compiled."""
        return len(self.graphs)

    @property
    def distinct(self) -> list[GraphReport]:
        """The graphs, without the repeats that other batch sizes caused."""
        return list({g.signature: g for g in self.graphs}.values())

    @property
    def region_list(self) -> list[Region]:
        """The regions of all distinct graphs, in the order in which they run."""
        return [r for g in self.distinct for r in g.regions]

    @property
    def rows(self) -> list[Row]:
        """One for each op of all distinct graphs: where it runs and why."""
        return [row for g in self.distinct for row in g.rows]

    @property
    def regions(self) -> int:
        """How many of them there are."""
        return len(self.region_list)

    @property
    def device_ops(self) -> int:
        """How many of the graph's ops the device computes."""
        return sum(row.where == DEVICE for row in self.rows)

    @property
    def eager_ops(self) -> int:
        """How many run eager on the CPU."""
        return sum(row.where == EAGER for row in self.rows)

    @property
    def flops_share(self) -> float:
        """The share of all multiplications and additions that runs on the device; 1 where there are none."""
        total = sum(row.flops for row in self.rows)
        return sum(row.flops for row in self.rows if row.where == DEVICE) / total if total else 1.0

    @property
    def dispatches(self) -> int:
        """Commands sent to the device so far, by every model that shares the executables."""
        return sum(s.dispatches for s in self._stats())

    @property
    def dispatches_per_call(self) -> int:
        """Commands that one call (of one clip) sends to the device: a program's, of each region that has one."""
        executables = [e for g in self.distinct for e in g.executables]
        return sum(len(e.program.dispatches) for e in executables if hasattr(e, "program"))

    @property
    def overlay_changes(self) -> int:
        """How often the array had to be configured with another overlay for a run so far."""
        return sum(s.overlay_changes for s in self._stats())

    @property
    def bytes_synced(self) -> tuple[int, int]:
        """Bytes synced to the device and from it so far; weights count once. (0, 0) off the NPU."""
        to, back = (
            sum(getattr(s, name, 0) for s in self._stats())
            for name in ("bytes_to_device", "bytes_from_device")
        )
        return to, back

    def per_call(self) -> dict[str, float]:
        """What the calls so far asked of the device, per call (of a batch: per clip); weights are uploaded once and
        count in the bytes. Empty before the first submission, and for a device that nothing is submitted to."""
        calls = self.dispatches / max(self.dispatches_per_call, 1)
        return {name: count / calls for name, count in counted(self._stats()).items()}

    @property
    def failures(self) -> Counter[str]:
        """Why regions ran eager although the device had taken them, a sentence each -> in how many calls."""
        return sum((g.failures for g in self.graphs), Counter())

    def _stats(self) -> list[Any]:
        # One for several lengths has one for each inside.
        found = (getattr(e, "executables", (e,)) for g in self.graphs for e in g.executables)
        executables = {id(e): e for some in found for e in some}
        return [e.stats for e in executables.values() if hasattr(e, "stats")]

    def summary(self) -> str:
        """As `encoder: 1 region, 0 eager ops`."""
        if self.off and not self.graphs:
            return f"nothing is compiled, all of it runs eager on the CPU, because {self.off}"
        failed = f", {_count(self.failures.total(), 'failed call')} run eager" if self.failures else ""
        return f"{self.name}: {_count(self.regions, 'region')}, {_count(self.eager_ops, 'eager op')}{failed}"

    def profile(self) -> Any:
        """Modelled time per layer and op; see torch_xdna.profile."""
        from torch_xdna.profile import profile_report

        return profile_report(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it as lists, dictionaries, numbers and text, for JSON."""
        return {
            "summary": self.summary(),
            "regions": self.regions,
            "device_ops": self.device_ops,
            "flops_share": self.flops_share,
            "eager_ops": self.eager_ops,
            "compiles": self.compiles,
            "dispatches": self.dispatches,
            "dispatches_per_call": self.dispatches_per_call,
            "overlay_changes": self.overlay_changes,
            "bytes_synced": self.bytes_synced,
            "failures": dict(self.failures),
            "graphs": [
                {
                    "name": g.name,
                    "device": g.device or None,
                    "rows": [asdict(row) for row in g.rows],
                    "regions": [str(r) for r in g.regions],
                }
                for g in self.distinct
            ],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON, indented by `indent` spaces; None writes one line."""
        return json.dumps(self.to_dict(), indent=indent)

    def tables(self) -> list[Table]:
        """A rich table per graph."""
        from rich.table import Table

        tables = []
        for graph in self.distinct:
            title = f"{graph.name} on {graph.device}" if graph.device else graph.name
            table = Table(title=title, title_justify="left")
            for column in ("op", "of", "shape", "where", "why"):
                table.add_column(column, overflow="fold")
            for row in graph.rows:
                where = "eager CPU" if row.region is None else f"region {row.region}"
                style = "yellow" if row.where == EAGER else None
                table.add_row(row.op, row.name, _shape(row.shape), where, row.reason, style=style)
            tables.append(table)
        return tables

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        console = Console(file=text, width=160, color_system=None)
        for table in self.tables():
            console.print(table)
        if self.off and not self.graphs:
            return f"{self.summary()}\n"
        counts = f"{_count(self.device_ops, 'op')} on the device, {_count(self.compiles, 'compile')}"
        if self.dispatches_per_call > self.regions:
            counts += f", {self.dispatches_per_call} dispatches per call"
        if self.flops_share < 1:
            counts += f", {100 * self.flops_share:.1f} % of the arithmetic"
        console.print(f"{self.summary()} ({counts})")
        return text.getvalue()


_REPORTS: weakref.WeakSet[Report] = weakref.WeakSet()


def reports() -> list[Report]:
    """A report for each function or module compiled in this process whose compiled code still exists."""
    return sorted(_REPORTS, key=lambda r: r.number)


def recorded(graph: GraphReport) -> Report:
    """The report that a graph belongs to; whoever compiled the graph must hold on to it."""
    for report in reports():
        if graph.signature in {g.signature for g in report.graphs}:
            report.graphs.append(graph)
            return report
    report = Report([graph])
    _REPORTS.add(report)
    return report


def forget() -> None:
    """Nothing is compiled any more: after torch._dynamo.reset()."""
    _REPORTS.clear()


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _shape(shape: Sequence[int | str]) -> str:
    return " x ".join(map(str, shape))
