"""Every code block, command and statement of the README and the other documents runs, as a reader would type it.

Checkpoints by id become the shipped one, so that nothing is fetched. What can't run in a test is in `NOT_RUN` with the
reason, what would take minutes in `CHEAPER` with what runs instead; everything else runs as it stands, and an entry
that no document has any more is an error.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import documents
import numpy as np
import pytest
import soundfile
import torch

import torch_xdna
from torch_xdna import speech
from torch_xdna.speech.audio import read

ROOT = documents.ROOT
CLIP = speech.clips()[0].path

ROOT_RIGHTS = "needs root"
NETWORK = "fetches from the network"
EXAMPLE = "tests/examples runs it"
HARDWARE = "needs an NPU; tests/npu runs it on AMD's driver with a stand-in for the kernel's"
SERVES = "runs until it is stopped; what is asked of it runs against it, see `address`"
SERVER = "127.0.0.1:8000"
NOT_RUN = {
    "sudo apt update": ROOT_RIGHTS,
    "sudo apt install -t trixie-backports linux-image-amd64 firmware-amd-graphics libxrt-npu2 libxrt-utils "
    "libxrt-utils-npu python3-xrt git g++ python3-venv": ROOT_RIGHTS,
    "sudo usermod -aG render $USER && echo '* - memlock unlimited' | sudo tee /etc/security/limits.d/npu.conf "
    "&& sudo reboot": ROOT_RIGHTS,
    "apt install python3-xrt": ROOT_RIGHTS,
    "apt install espeak-ng": ROOT_RIGHTS,
    "git clone <this repository> torch-xdna && cd torch-xdna && python3.13 -m venv .venv && .venv/bin/pip "
    "install .": NETWORK,
    ".venv/bin/pip install mlir_aie==1.3.4 llvm-aie==20.0.0.2026032001+0e7cfc0e -f <release page of each, which "
    "doctor names>": NETWORK,
    "python tests/backend/hf_whisper.py FOLDER": "needs a checkout of transformers; tests/backend has a stand-in",
    "pip install -e .[dev]": NETWORK,
    "python tests/examples/new_op.py": EXAMPLE,
    "python tests/examples/new_device.py": EXAMPLE,
    "docker run --device /dev/accel/accel0 --group-add $(getent group render | cut -d: -f3) --cap-add IPC_LOCK "
    "--ulimit memlock=-1 ...": "needs docker and an NPU",
    ".venv/bin/torch-xdna build-overlay": "needs Peano and mlir-aie; tests/overlay runs it on stand-ins",
    ".venv/bin/torch-xdna selftest": HARDWARE,
    "torch-xdna selftest": HARDWARE,
    "pip install -e .[serve]": NETWORK,
    "pip install -e .[fast,evaluate]": NETWORK,
    "pip install -e .[ray]": NETWORK,
    "python tests/distributed/nodes.py": "a minute of several Ray nodes; by hand",
    "torch-xdna serve": SERVES,
    "torch-xdna serve --model openai/whisper-base": SERVES,
}

TRAINING = "python -m torch_xdna.speech.training"
CHEAPER = {
    "make demo": ["make -n demo", "python -m torch_xdna.speech.demo"],
    'make demo TORCH="torch==2.13.0+cpu --extra-index-url=..."': ["make -n demo TORCH=torch"],
    "make test": ["make -n test"],  # this suite
    "make test SEED=123": ["make -n test SEED=123"],
    "make lint": ["make -n lint"],  # a test for each of its tools is in the suite or in make test
    "make format": ["make -n format"],
    "make docs": ["make -n docs"],  # tests/docs/test_api.py builds them
    "python benchmarks/distributed.py": ["HELP"],  # minutes; tests/distributed runs jobs
    "python -m pytest tests/golden --update": ["python -m pytest tests/golden --collect-only -q"],
    "python -m torch_xdna.kernels_xdna1 count": [
        "python -m torch_xdna.kernels_xdna1 --help"
    ],  # it writes a file
    "python -m pytest tests/backend/test_names.py -q": [
        "python -m pytest tests/backend/test_names.py --collect-only -q"
    ],
    "make matrix": ["make -n matrix", "python tests/matrix.py --list"],  # environments of 5 GB
    "make bench": ["make -n bench"],
    'make bench SELECT="base and fc1"': [
        'make -n bench SELECT="base and fc1"',
        'python -m pytest benchmarks -k "base and fc1" --collect-only -q',
    ],
    "make tables": ["make -n tables"],
    "make tables TABLES=--quick": ["make -n tables", "python benchmarks/tables.py --help"],
    "torch-xdna transcribe torch_xdna/speech/clips/*.flac": [
        "torch-xdna transcribe torch_xdna/speech/clips/0[1-3].flac"
    ],
    # The shipped model knows one language; tests/real has others.
    "torch-xdna transcribe rede.m4a --model openai/whisper-small --language de --task translate": [
        "torch-xdna transcribe talk.m4a --model openai/whisper-small"
    ],
    "torch-xdna transcribe": ["torch-xdna transcribe --help"],
    "python tests/backend/fuzz.py --cases 3000 --seed 1": ["python tests/backend/fuzz.py --cases 5 --seed 1"],
    "torch-xdna profile base": ["torch-xdna profile tiny"],
    "python -m torch_xdna.devices.array small": ["python -m torch_xdna.devices.array tiny --context 100"],
    "pytest -s -k host_cost tests/npu": ["python -m pytest -s -k host_cost tests/npu --collect-only -q"],
    # Minutes each; tests/bench runs encoder.py on a toy.
    **{f"python benchmarks/encoder.py --size {size}": ["HELP"] for size in ("tiny", "base", "small")},
    "python benchmarks/encoder.py --size base --variants eager,eager-bf16,xdna": ["HELP"],
    "python benchmarks/layers.py --size base": ["HELP"],
    "python benchmarks/coverage.py": ["HELP"],  # minutes; tests/bench makes two rows anew
    "torch-xdna transcribe --ray torch_xdna/speech/clips --output transcripts": [
        "torch-xdna transcribe --ray torch_xdna/speech/clips/01.flac --output transcripts"
    ],
    f"{TRAINING}.train WORK --stage whisper --start torch_xdna/speech/checkpoint --steps 4000 --decay-steps 3500 "
    "--rate 5e-4 --dropout 0 --processes 1": ["HELP"],
    f"{TRAINING}.train WORK --stage whisper --start torch_xdna/speech/checkpoint --steps 5000 --decay-steps 2500 "
    "--rate 4e-4 --dropout 0 --processes 1 --earlier 0.5 --resume WORK/checkpoint.pt": ["HELP"],
    f"{TRAINING}.export WORK FOLDER": ["HELP"],
    "python benchmarks/serving.py": ["HELP"],
    "python benchmarks/transcribe.py MODEL RECORDING": ["HELP"],
    "python benchmarks/modelled.py": [
        "python -c 'import sys; sys.path[0] = \"benchmarks\"; import modelled'"
    ],
    # Hours, and espeak-ng for the corpus; tests/speech trains on little.
    f"{TRAINING}.corpus WORK": ["HELP"],
    f"{TRAINING}.train WORK --steps 6000 --decay-steps 2000 --save-steps 200": ["HELP"],
    f"{TRAINING}.train WORK --steps 6000 --decay-steps 2000 --dropout 0 --resume WORK/checkpoint.pt": [
        "HELP"
    ],
    f"{TRAINING}.train WORK --steps 10500 --decay-steps 4000 --rate 1e-3 --dropout 0 --resume "
    "WORK/checkpoint.pt": ["HELP"],
    f"{TRAINING}.export WORK torch_xdna/speech/checkpoint": ["HELP"],
    f"{TRAINING}.clips torch_xdna/speech/clips": ["HELP"],
    f"{TRAINING}.evaluate torch_xdna/speech/checkpoint": ["HELP"],
}
# Commands that end with another exit code on a machine without an NPU.
EXIT_CODES = {"torch-xdna doctor": (0, 1), ".venv/bin/torch-xdna doctor": (0, 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout to type in: the files of the documents' examples, and `torch-xdna` and `python` on the PATH."""
    place = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("benchmarks", "build"):
            (place / path.name).symlink_to(path)
    shutil.copytree(ROOT / "benchmarks", place / "benchmarks")  # scripts may write there
    samples = read(CLIP, 16_000)
    soundfile.write(place / "speech.wav", samples, 16_000)
    soundfile.write(place / "talk.mp3", samples, 16_000)
    m4a(place / "talk.m4a", samples)
    (place / "bin").mkdir()
    for name, module in (("python", ""), ("torch-xdna", "-m torch_xdna"), ("pytest", "-m pytest")):
        script = place / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
        script.chmod(0o755)
    return place


@functools.cache
def server() -> subprocess.Popen[str]:
    """`torch-xdna serve` with the shipped model, for the rest of this module."""
    command = [sys.executable, "-m", "torch_xdna", "serve", "--port", "0"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@functools.cache
def address() -> str:
    for line in server().stderr or ():
        if found := re.search(r"serving .* at http://(\S+)", line):
            return found[1]  # what it goes on to log is a few lines, which fit into the pipe
    raise AssertionError("the server did not start")


@pytest.fixture(scope="module", autouse=True)
def _the_server_ends() -> Iterator[None]:
    yield
    if server.cache_info().currsize:
        server().terminate()
        server().wait(60)


def m4a(path: Path, samples: np.ndarray) -> None:
    """AAC as phones write it. `samples`: float32 (n,), mono, 16 kHz."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def local(text: str) -> str:
    """Checkpoints by id become the shipped one, the server is one that runs here."""
    if SERVER in text:
        text = text.replace(SERVER, address())
    return re.sub(r"openai/whisper-[\w.-]+", str(speech.CHECKPOINT), text)


def typed(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    line = local(command).replace(".venv/bin/", "")
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("command", [c for c in documents.commands() if c not in NOT_RUN])
def test_commands(folder: Path, command: str) -> None:
    for line in CHEAPER.get(command, [command]):
        if line == "HELP":
            options_exist(command, folder)
            continue
        run = typed(line, folder)
        shown = f"{line}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"
        assert run.returncode in EXIT_CODES.get(command, (0,)), shown
        assert "Traceback" not in run.stderr, shown
        assert run.stdout.strip() or line.startswith("export ") or "import" in line, shown


def options_exist(command: str, folder: Path) -> None:
    """The program is there and knows every option of the command."""
    words = shlex.split(command)
    program = next(
        i for i, word in enumerate(words) if word.endswith(".py") or word.startswith("torch_xdna.")
    )
    text = help_of(shlex.join(words[: program + 1]), folder)
    for word in words[program + 1 :]:
        assert not word.startswith("--") or word in text, f"{word} of: {command}"


@functools.cache
def help_of(program: str, folder: Path) -> str:
    run = typed(f"{program} --help", folder)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_tables_name_commands_of_the_documents() -> None:
    stale = [c for c in (*NOT_RUN, *CHEAPER, *EXIT_CODES) if c not in documents.commands()]
    assert not stale
    assert not list(documents.unknown_blocks())


@pytest.mark.parametrize("code", list(documents.python_blocks()))
def test_code_blocks(folder: Path, code: str) -> None:
    """Each in a process of its own: nothing but what it imports is there."""
    (folder / "example.py").write_text(local(code))
    run = typed("python example.py", folder)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == speech.clips()[0].text or "print" not in code, run.stdout


class Toy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.linear(x))


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    """What the statements in the text speak of."""
    from transformers import WhisperModel, pipeline

    asr = pipeline("automatic-speech-recognition", model=str(speech.CHECKPOINT))
    whisper = WhisperModel.from_pretrained(speech.CHECKPOINT)
    config = whisper.config
    mel = torch.zeros(1, config.num_mel_bins, 2 * config.max_source_positions)
    toy = Toy().eval()
    spoken = {"asr": asr, "whisper": whisper, "mel": mel, "m": toy, "module": toy, "x": torch.ones(1, 8, 64)}
    return {"torch": torch, "torch_xdna": torch_xdna, **spoken}


@pytest.mark.parametrize("statement", documents.python_spans())
def test_statements(names: dict[str, object], statement: str) -> None:
    torch._dynamo.reset()
    with torch.no_grad():
        exec(statement.replace("options={...}", 'options={"device": "emulator"}'), dict(names))
    torch._dynamo.reset()


@pytest.mark.parametrize("statement", [s for s in documents.python_spans() if re.fullmatch(r"[\w.]+\(\)", s)])
def test_statements_need_no_other_import(folder: Path, statement: str) -> None:
    """As typed into a new interpreter: what another test imported must not matter."""
    run = typed(f"python -c 'import torch_xdna; {statement}'", folder)
    assert run.returncode == 0, run.stderr


def test_links() -> None:
    gone = [f"{path.name}: {target}" for path, target in documents.links() if not target.exists()]
    assert not gone
    fragments = list(documents.fragments())
    unknown = [
        f"{path.name}: {to}#{name}" for path, to, name in fragments if name not in documents.headings(to)
    ]
    assert not unknown and len(fragments) > 1
