"""What is installed is one top-level package: `lowering` and `kernels_xdna1` in site-packages could be anybody's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKS = ("lowering", "kernels_xdna1")


def test_the_links_are_relative() -> None:
    assert [os.readlink(ROOT / "torch_xdna" / name) for name in LINKS] == ["../lowering", "../kernels_xdna1"]


def test_a_wheel_has_one_package_with_all_its_files(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="setuptools is not installed in this environment")
    source, out = tmp_path / "source", tmp_path / "out"
    left_out = shutil.ignore_patterns(
        ".*", "build", "*.egg-info", "tests", "benchmarks", "docs", "__pycache__"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    out.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = out.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"torch_xdna"}
    wanted = ("py.typed", "lowering/pipeline.py", "lowering/host_data/native.cc", "lowering/time/calibration.csv",
              "kernels_xdna1/kernels/gemm_step.cc", "kernels_xdna1/cycles.json", "speech/checkpoint/model.safetensors",
              "serve/page/page.html")  # fmt: skip
    assert [name for name in wanted if f"torch_xdna/{name}" not in names] == []
