"""Hugging Face's own Whisper tests, eager and with every encoder compiled: which pass only eager?

    git clone --depth 1 --branch v5.x https://github.com/huggingface/transformers      # the installed version's
    python tests/backend/hf_whisper.py transformers [--device emulator] [arguments of pytest]

Those tests come in no wheel. They run twice, in processes of their own, from the folder given; the exit code is 0 if
all that pass eager pass compiled, or fail only by the distance that bf16 explains (`atol` of 1e-4 and less in fp32).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

DEVICE = "TORCH_XDNA_HF_DEVICE"  # set: compile every encoder for this device
BF16 = 3e-2  # the largest absolute difference that may be bf16's, for values up to 4


def outcomes(folder: Path, device: str | None, more: list[str]) -> dict[str, str]:
    """Test -> "" if it passed, else what it says; skipped ones are left out."""
    here = Path(__file__).resolve()
    environment = {k: v for k, v in os.environ.items() if k != DEVICE}
    environment |= {} if device is None else {DEVICE: device}
    paths = (str(here.parent), str(here.parents[2]), str(folder), environment.get("PYTHONPATH", ""))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "tests/models/whisper",
            "-q",
            "-p",
            "hf_whisper",
            f"--junitxml={report}",
        ]
        subprocess.run([*command, *more], cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=False)
        if not report.exists():
            raise SystemExit(
                f"pytest did not run in {folder}: give a checkout of transformers with tests/models/whisper"
            )
        found = {}
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            bad = [child for child in case if child.tag in ("failure", "error")]
            if not any(child.tag == "skipped" for child in case):
                text = f"{bad[0].get('message', '')}\n{bad[0].text or ''}" if bad else ""
                found[f"{case.get('classname')}.{case.get('name')}"] = text
    return found


def is_rounding(text: str) -> bool:
    """Whether torch.testing, or transformers' own comparison, says that numbers differ, by no more than bf16
    explains."""
    found = re.findall(
        r"(?:Greatest absolute difference|mean relative difference for \w+): ([0-9.e+-]+)", text
    )
    return bool(found) and all(float(n) <= BF16 for n in found)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="emulator")
    args, more = parser.parse_known_args(arguments)
    eager = outcomes(args.folder, None, more)
    compiled = outcomes(args.folder, args.device, more)
    passed = [name for name, text in eager.items() if not text]
    failed = {name: compiled.get(name, "did not run") for name in passed if compiled.get(name, "did not run")}
    rounding = [name for name, text in failed.items() if is_rounding(text)]
    print(f"{len(passed) - len(failed)} pass compiled of the {len(passed)} that pass eager")
    print(f"{len(rounding)} ask for more than bf16 gives: {', '.join(rounding) or '-'}")
    others = [name for name in failed if name not in rounding]
    for name in others:
        print(f"FAILS {name}: {failed[name].strip().splitlines()[0]}")
    return 1 if others or not passed else 0


# As pytest's plugin, in the second process


def pytest_configure(config) -> None:
    device = os.environ.get(DEVICE)
    if device is None:
        return
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    plain = WhisperEncoder.__init__

    def compiled(self, *args, **kwargs) -> None:
        plain(self, *args, **kwargs)
        self.compile(backend="xdna", options={"device": device})

    WhisperEncoder.__init__ = compiled


def pytest_runtest_teardown(item) -> None:
    """Each test starts with nothing compiled: Dynamo stops compiling a forward that it met too often."""
    import torch

    torch._dynamo.reset()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
