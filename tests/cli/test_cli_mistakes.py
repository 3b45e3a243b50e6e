"""What a user sees who gets something wrong: one sentence with cause and remedy on stderr, exit code 2, no
traceback, no half-written file. The commands run as processes would: through `main`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from torch_xdna.cli import cli, main, output
from torch_xdna.errors import XdnaError

WHISPER = {
    "model_type": "whisper", "d_model": 128, "encoder_layers": 1, "encoder_attention_heads": 2,
    "encoder_ffn_dim": 256, "num_mel_bins": 80, "max_source_positions": 50,
}  # fmt: skip
BROKEN_CONFIGURATIONS = {
    "not json": ("{oops", "is not valid JSON"),
    "a list": ("[1]", "holds a JSON list"),
    "no type": ("{}", "model of type None"),
    "another model": ('{"model_type": "bert"}', "model of type 'bert'"),
    "text": (json.dumps({**WHISPER, "d_model": "128"}), "d_model is '128'"),
    "zero": (json.dumps({**WHISPER, "encoder_attention_heads": 0}), "encoder_attention_heads is 0"),
    "negative": (json.dumps({**WHISPER, "d_model": -128}), "d_model is -128"),
    "uneven": (
        json.dumps({**WHISPER, "encoder_attention_heads": 3}),
        "no multiple of encoder_attention_heads 3",
    ),
}


class Shell:
    """Runs `torch-xdna` in this process: exit code, stdout, stderr. Any exception that is no exit fails the
    test, as it would show a traceback."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *args: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr("sys.argv", ["torch-xdna", *map(str, args)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self.capsys.readouterr()
        return int(end.value.code or 0), out, err

    def refused(self, *args: object) -> str:
        """The one sentence of a command that can't be done."""
        code, _, err = self(*args)
        last = err.splitlines()[-1]
        assert code == 2 and last.startswith(("torch-xdna: ", "Error: ")), (code, err)
        return last


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.mark.parametrize("command", ["explain", "disasm --model", "transcribe x.wav --model"])
@pytest.mark.parametrize("broken", BROKEN_CONFIGURATIONS)
def test_broken_configurations(shell: Shell, tmp_path: Path, command: str, broken: str) -> None:
    text, says = BROKEN_CONFIGURATIONS[broken]
    (tmp_path / "config.json").write_text(text)
    assert says in shell.refused(*command.split(), tmp_path)


@pytest.mark.parametrize("command", ["explain", "disasm --model", "transcribe x.wav --model"])
def test_no_such_model(shell: Shell, tmp_path: Path, command: str) -> None:
    assert "has no config.json" in shell.refused(*command.split(), tmp_path)
    assert "there is no folder" in shell.refused(*command.split(), tmp_path / "gone")


def test_disasm_of_damaged_streams(shell: Shell, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "tiny.bin", tmp_path / "damaged.bin"
    assert shell("disasm", "--config", "tiny", "--summary", "--save", whole)[0] == 0
    content = whole.read_bytes()
    for bad, says in (
        (b"", "too few for a header"),
        (b"\xff" * 500, "version 0xffffffff"),
        (content[:1000], "the header states"),
        (content[:1001], "no whole number of 32-bit words"),
        (content[:16] + b"\xee" * (len(content) - 16), "word 4: unknown opcode"),
    ):
        damaged.write_bytes(bad)
        assert says in shell.refused("disasm", damaged)
    assert "does not exist" in shell.refused("disasm", tmp_path / "gone")


def test_disasm_saves_whole_or_not_at_all(shell: Shell, tmp_path: Path) -> None:
    kept = tmp_path / "kept.bin"
    kept.write_text("mine")
    save = ("disasm", "--config", "tiny", "--summary", "--save")
    assert "No such file or directory" in shell.refused(*save, tmp_path / "gone" / "x.bin")
    assert "there is no step 99" in shell.refused(*save, kept, "--step", 99)
    assert kept.read_text() == "mine"
    assert shell(*save, kept)[0] == 0 and kept.stat().st_size > 100_000
    assert [file.name for file in tmp_path.iterdir()] == ["kept.bin"]


def test_output_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the middle of writing."""
    kept = tmp_path / "report.json"
    kept.write_text("old")
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        write(self, content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(XdnaError, match="No space left on device; name another file"):
        output.write(kept, b"new content")
    assert kept.read_text() == "old" and list(tmp_path.iterdir()) == [kept]


def test_selftest_asks_first_where_its_report_goes(shell: Shell, tmp_path: Path) -> None:
    """Before the minutes that it takes, and before it opens the NPU."""
    assert "can't be made in" in shell.refused("selftest", "--output", tmp_path / "gone" / "report.json")
    assert "directory" in shell.refused("selftest", "--output", tmp_path)


def test_build_overlay_without_tools(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PEANO_INSTALL_DIR", "MLIR_AIE_INSTALL_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    sentence = shell.refused("build-overlay", "--output", tmp_path / "o.xclbin")
    for part in ("aiecc was not found", "PEANO_INSTALL_DIR is not set", "xclbinutil was not found"):
        assert part in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_xdna.devices import _make
    from torch_xdna.kernels_xdna1 import host

    monkeypatch.setenv("TORCH_XDNA_CACHE", "/dev/null/cache")
    for cached in (_make, host.load):
        cached.cache_clear()
    sentence = shell.refused("transcribe", "x.wav", "--device", "array")
    assert "compiled kernels in /dev/null/cache" in sentence and "TORCH_XDNA_CACHE" in sentence


def test_a_wrong_overlay_variable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Building the overlay is no remedy while a variable names another file."""
    from torch_xdna.devices.npu import overlay

    bad = tmp_path / "bad.xclbin"
    bad.write_text("not an overlay")
    monkeypatch.setenv("TORCH_XDNA_OVERLAY", str(bad))
    with pytest.raises(XdnaError, match="unset TORCH_XDNA_OVERLAY"):
        overlay.check(overlay.locate(None, 4), columns=4)
    with pytest.raises(XdnaError, match="name another xclbin"):
        overlay.check(tmp_path / "gone.xclbin", columns=4)


@pytest.mark.parametrize("command", ["doctor", "disasm --config tiny --summary"])
def test_a_full_disk_behind_stdout(command: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "torch_xdna", *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    said = "torch-xdna: no space is left where the output goes; send it elsewhere\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("name", cli.list_commands(None))  # type: ignore[arg-type]
def test_every_command_has_help_and_refuses_unknown_options(shell: Shell, name: str) -> None:
    code, out, _ = shell(name, "--help")
    assert code == 0 and out.startswith(f"Usage: torch-xdna {name}")
    assert "--nonsense" in shell.refused(name, "--nonsense")


def test_unknown_names(shell: Shell) -> None:
    assert "No such command 'doctro'" in shell.refused("doctro")
    assert "is not known; use one of tiny" in shell.refused("profile", "nosuch")
    assert "is not known; use one of tiny" in shell.refused("disasm", "--config", "nosuch")
    assert "there is no device 'gpu'" in shell.refused("profile", "tiny", "--device", "gpu")
