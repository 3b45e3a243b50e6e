"""The report as data: the JSON that tools read, and the counts over graphs and compiles."""

from __future__ import annotations

import json
import re

import torch
from torch import nn

import torch_xdna
from torch_xdna.report import GraphReport, Report, Row


class HalfEager(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(64, 96), nn.Linear(96, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.sin(self.up(x)))


def test_json_of_a_compiled_module() -> None:
    torch._dynamo.reset()
    run = torch.compile(HalfEager(), backend="xdna", options={"device": "emulator"})
    with torch.no_grad():
        for batch in (1, 3):
            run(torch.randn(batch, 5, 64))
    (report,) = torch_xdna.reports()
    found = json.loads(report.to_json())
    assert found == json.loads(json.dumps(report.to_dict()))
    (graph,) = found.pop("graphs")  # two compiles, the second for any batch: one row per op all the same
    assert found == {
        "summary": "HalfEager: 2 regions, 1 eager op", "regions": 2, "device_ops": 2, "eager_ops": 1,
        "flops_share": 1.0, "compiles": 2, "dispatches": 0, "dispatches_per_call": 0, "overlay_changes": 0,
        "bytes_synced": [0, 0], "failures": {},
    }  # fmt: skip
    assert graph["name"] == "HalfEager" and graph["device"] == "emulator" and len(graph["regions"]) == 2
    rows = [row for row in graph["rows"] if row["where"] == "eager" or row["region"] is not None]
    assert [(row["name"], row["where"], row["region"]) for row in rows] == [
        ("up", "device", 0), ("sin", "eager", None), ("down", "device", 1),
    ]  # fmt: skip
    assert {row["dtype"] for row in rows} == {"float32"}
    for row, shape in zip(rows, ([r"5\*s\d+", 96], [r"s\d+", 5, 96], [r"5\*s\d+", 64])):
        batch, *rest = row["shape"]  # a size that may change has a name
        assert re.fullmatch(shape[0], batch) and rest == shape[1:]
    assert "sin" in rows[1]["op"] and rows[1]["reason"]


def test_failures_are_told() -> None:
    graph = GraphReport("m", 0, (Row("aten.add", "", (2,), "float32", "eager", None, "why"),))
    graph.failures["region r runs eager on the CPU, because of a test"] += 1
    report = Report([graph, graph])
    assert report.compiles == 2 and len(report.rows) == 1
    assert report.summary() == "m: 0 regions, 1 eager op, 2 failed calls run eager"
    assert json.loads(report.to_json(None))["failures"] == {
        "region r runs eager on the CPU, because of a test": 2
    }


def test_an_empty_report() -> None:
    assert json.loads(Report().to_json())["summary"] == "nothing: 0 regions, 0 eager ops"
