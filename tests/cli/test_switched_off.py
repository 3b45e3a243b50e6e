"""TORCHDYNAMO_DISABLE=1 and its like make torch.compile do nothing: the commands say so (they were silent)."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from torch_xdna import speech
from torch_xdna.cli import cli
from torch_xdna.errors import XdnaError


@pytest.fixture(autouse=True)
def switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, [*args])


def test_explain() -> None:
    done = run("explain", "tiny")
    assert "TORCHDYNAMO_DISABLE=1 in the environment" in done.output and "runs eager" in done.output


def test_transcribe_says_it_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command replaces it
    done = run("transcribe", speech.clips()[0].path, "--device", "emulator")
    assert done.exit_code == 0 and done.stdout.strip()
    assert "runs eager on the CPU, because TORCHDYNAMO_DISABLE=1" in done.stderr


@pytest.mark.parametrize("device", ["array", "npu"])
def test_a_device_that_would_not_be_used(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    import warnings

    from torch_xdna import devices

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(devices, "select", lambda name: None)  # as if it were here
    done = run("transcribe", speech.clips()[0].path, "--device", device)
    assert isinstance(done.exception, XdnaError)  # which main() prints, with exit code 2
    assert f"--device {device} can't run the encoder, because TORCHDYNAMO_DISABLE=1" in str(done.exception)
