"""TORCH_XDNA_DUMP: every stage of a compile in a file, and internal errors that point to it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_xdna import dump
from torch_xdna.dump import Dump, InternalError
from torch_xdna.lowering import lower
from torch_xdna.lowering.commands.decode import decode
from torch_xdna.lowering.ops import Region
from torch_xdna.settings import Settings

STAGES = ["0_dynamo.txt", "1_aten.txt", "2_report.txt", "3_region.txt", "4_steps.txt", "5_streams.txt",
          "6_program.txt", "7_words.bin"]  # fmt: skip


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.linear(x))


class Twice(Small):
    """Two regions, for there is an op between that the device does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.cumsum(super().forward(x), 1))


def compiled(module: torch.nn.Module, **options: object) -> None:
    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(module.eval(), backend="xdna", options={"device": "emulator", **options})(
            torch.randn(1, 70, 64)
        )


def test_every_stage_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_XDNA_DUMP", str(tmp_path / "new" / "folder"))
    compiled(Small(), columns=2)
    (folder,) = (tmp_path / "new" / "folder").iterdir()
    assert re.fullmatch(r"\d{4}-Small", folder.name)
    assert sorted(p.name for p in folder.iterdir()) == STAGES
    assert "linear" in (folder / "0_dynamo.txt").read_text()
    assert "torch.ops.aten" in (folder / "1_aten.txt").read_text()
    assert "1 region" in (folder / "2_report.txt").read_text()
    region = Region.parse((folder / "3_region.txt").read_text())
    program = lower(region, columns=2)
    words = np.fromfile(folder / "7_words.bin", "<u4")
    assert (words == program.words).all() and len(decode(words)) == len(program.commands)
    steps, streams = (folder / "4_steps.txt").read_text(), (folder / "5_streams.txt").read_text()
    assert steps.startswith("step 0: gemm linear: 70 x 64 -> 64\n  reads x: arg1+0x")
    assert "  header op gemm, outer " in streams and "  column 1 C: " in streams
    assert "on 2 columns" in (folder / "6_program.txt").read_text()


def test_words_are_those_of_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_XDNA_DUMP", str(tmp_path))

    class Two(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(super().forward(x), -1)

    compiled(Two(), columns=1, split="op", iterated=False)
    (folder,) = tmp_path.iterdir()
    region = Region.parse((folder / "3_region.txt").read_text())
    wanted = lower(region, columns=1, split="op", iterated=False).dispatches
    found = [np.fromfile(folder / name, "<u4") for name in ("7_words.bin", "7_words.0.1.bin")]
    assert len(wanted) == 2 and all((a == b).all() for a, b in zip(found, wanted, strict=True))


def test_a_fault_of_lowering_is_in_the_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("add")

    monkeypatch.setenv("TORCH_XDNA_DUMP", str(tmp_path))
    monkeypatch.setattr(dump, "steps_and_streams", broken)
    compiled(Small())
    (folder,) = tmp_path.iterdir()
    assert "not lowered: KeyError: 'add'" in (folder / "6_program.txt").read_text()


def test_a_graph_that_needs_gradients_has_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_XDNA_DUMP", str(tmp_path))
    torch._dynamo.reset()
    with pytest.warns(UserWarning, match="gradients"):
        torch.compile(Small(), backend="xdna", options={"device": "emulator"})(torch.randn(1, 70, 64))
    (folder,) = tmp_path.iterdir()
    assert "gradients" in " ".join((folder / "2_report.txt").read_text().split())


def test_each_region_has_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_XDNA_DUMP", str(tmp_path))
    with pytest.warns(UserWarning, match="cumsum"):
        compiled(Twice())
    (folder,) = tmp_path.iterdir()
    assert {"3_region.txt", "3_region.1.txt", "7_words.bin", "7_words.1.bin"} <= {
        p.name for p in folder.iterdir()
    }


def test_what_is_not_lowered_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_XDNA_DUMP", str(tmp_path))
    region = Region.parse("region wide\n input %0[4x4160]\n %1[4x4160] = Softmax(x=%0)\n return %1")
    Dump("wide").regions((region,), Settings())
    (folder,) = tmp_path.iterdir()
    assert "not lowered: softmax width" in (folder / "6_program.txt").read_text()
    assert not (folder / "7_words.bin").exists()


def test_a_folder_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.setenv("TORCH_XDNA_DUMP", str(file))
    with pytest.warns(UserWarning, match="TORCH_XDNA_DUMP: .*can't be written") as warned:
        compiled(Small())
    assert len(warned) == 1


def test_stages_are_logged() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    log = logging.getLogger("torch_xdna")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        compiled(Small())
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    said = [str(r.args[0]) for r in records if r.args]
    assert said == [stage.rpartition(".")[0] for stage in STAGES[:-1]]


def test_an_internal_error_says_what_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("add")

    monkeypatch.setattr("torch_xdna.partitioning.decision.match_graph", broken)
    with pytest.raises(InternalError, match=r"compiling Small failed \(KeyError: 'add'\).*TORCH_XDNA_DUMP"):
        compiled(Small())
    torch._dynamo.reset()


def test_the_doctor_points_to_it() -> None:
    from click.testing import CliRunner

    from torch_xdna.cli import doctor

    assert doctor.REMEDY == dump.REMEDY
    assert dump.REMEDY in " ".join(CliRunner().invoke(doctor.command).output.split()).replace(
        "Set TORCH", "set TORCH"
    )


@pytest.fixture(autouse=True)
def _nothing_stays():
    yield
    dump._WARNED.clear()
    torch._dynamo.reset()
