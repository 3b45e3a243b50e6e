"""`torch.compile(..., options={"device": "npu"})`: results, and what a user sees when runs fail; with the real
pyxrt (borrowed from the sandbox) and, for machines where that can't be had, with a scripted one."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from block import Block, clips, compiled
from borrowed_xrt import BorrowedXrt
from click.testing import CliRunner
from rich.console import Console
from scripted_xrt import ScriptedXrt
from transformers import WhisperForConditionalGeneration

import torch_xdna
from torch_xdna.cli.transcribe import command as transcribe
from torch_xdna.devices.npu import device as npu_device
from torch_xdna.errors import DeviceError, FallbackError
from torch_xdna.profile import profile_regions
from torch_xdna.profile.terminal import show
from torch_xdna.speech import CHECKPOINT
from torch_xdna.speech import clips as shipped_clips

Xrt = ScriptedXrt | BorrowedXrt


@torch.no_grad()
def test_same_bits_as_the_array(xrt: Xrt) -> None:
    model = Block()
    on_npu = compiled(model)(clips())
    assert xrt.runs == 2, "one dispatch per clip"
    report = torch_xdna.reports()[-1]
    assert report.dispatches == 2 and report.overlay_changes == 0 and not report.failures
    to_device, from_device = report.bytes_synced
    assert from_device == 2 * 4 * 8192, "per clip 70 x 128 in blocks of 64 x 64"
    assert to_device > from_device
    on_array = torch.compile(model, backend="xdna", options={"device": "array"})(clips())
    assert torch.equal(on_npu, on_array)
    assert not torch.equal(on_npu[0], on_npu[1])
    torch.testing.assert_close(on_npu, model(clips()), rtol=0.02, atol=0.02)


@torch.no_grad()
def test_profile_counts_what_a_call_asks_of_the_npu(xrt: Xrt) -> None:
    compiled(Block())(clips())
    report = torch_xdna.reports()[-1]
    counts = report.profile().host_counts
    assert counts["dispatches"] == 1 and counts["overlay_changes"] == 0
    assert counts["bytes_from_device"] == 4 * 8192 < counts["bytes_to_device"], "weights count once"
    profile = profile_regions(report.region_list, device="npu", simulate=False)
    assert profile.host_counts["dispatches"] == 1 and profile.host_counts["overlay_changes"] == 0
    assert profile.host_counts["bytes_from_device"] == 4 * 8192
    assert profile.host_counts["bytes_to_device"] < counts["bytes_to_device"], (
        "the weights were there already"
    )
    assert profile.host_counts["cpu_seconds"] > 0
    out = io.StringIO()
    show(profile, Console(file=out, width=120))
    line = next(line for line in out.getvalue().splitlines() if line.startswith("counted per call"))
    assert "1 dispatch, 0 overlay changes, 0.13 MB synced to the device, 0.03 MB from it" in line


@torch.no_grad()
def test_batches_and_models_share_one_context(xrt: Xrt) -> None:
    first, second = Block(), Block()
    with torch.no_grad():
        second.up.weight.mul_(2)
    a, b = compiled(first), compiled(second)
    for batch in (1, 3, 2):
        assert torch.equal(a(clips(3))[:batch], a(clips(3)[:batch]))
    assert not torch.equal(a(clips()), b(clips()))
    assert xrt.contexts == 1


@torch.no_grad()
@pytest.mark.parametrize("state", ["ERROR", "ABORT", "TIMEOUT", "SUBMIT"])
def test_one_failure_is_not_seen(xrt: Xrt, state: str) -> None:
    model = compiled(Block())
    expected = model(clips())
    xrt.fail(state, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(model(clips()), expected)
    assert xrt.contexts == 2


@torch.no_grad()
def test_two_failures_run_eager_and_turn_the_npu_off(xrt: Xrt) -> None:
    model = Block()
    run = compiled(model)
    run(clips())
    xrt.fail("ERROR", 4)
    with pytest.warns(
        UserWarning, match="runs eager on the CPU, because the NPU ended the run in state ERROR"
    ):
        assert torch.equal(run(clips(seed=1)), model(clips(seed=1))), "eager's own numbers"
    runs = xrt.runs
    with pytest.warns(UserWarning, match="the NPU is off for this process"):
        assert torch.equal(run(clips(seed=2)), model(clips(seed=2)))
    assert xrt.runs == runs, "nothing is sent while the NPU is off"
    assert list(torch_xdna.reports()[-1].failures.values()) == [1, 1]
    assert "2 failed calls run eager" in torch_xdna.reports()[-1].summary()
    xrt.fail("ERROR", 0)
    torch_xdna.devices.npu.reset()
    on_npu = run(clips(seed=3))
    assert xrt.runs > runs and not torch.equal(on_npu, model(clips(seed=3)))


@torch.no_grad()
def test_forbidden_fallback_raises(xrt: Xrt) -> None:
    run = compiled(Block(), fallback="error")
    run(clips())
    xrt.fail("TIMEOUT", 4)
    with pytest.raises(FallbackError, match="state TIMEOUT"):
        run(clips())


@torch.no_grad()
def test_eager_twin_with_other_batches(xrt: Xrt) -> None:
    """Symbolic batch sizes are inputs of the graph; the twin needs them too."""
    model = Block()
    run = compiled(model)
    for batch in (1, 3, 2):
        run(clips(batch))
    xrt.fail("ERROR", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for batch in (1, 3, 4):
            assert torch.equal(run(clips(batch)), model(clips(batch)))


@torch.no_grad()
def test_copies_and_pickles(xrt: Xrt) -> None:
    device = npu_device.NpuDevice()
    run = compiled(Block())
    expected = run(clips())
    executable = torch_xdna.reports()[-1].graphs[0].executables[0]
    assert copy.deepcopy(executable) is executable and executable.stats.dispatches == 2
    with pytest.raises(TypeError, match="state_dict"):
        pickle.dumps(executable)
    assert torch.equal(copy.deepcopy(run)(clips()), expected)
    assert device.npu.context().generation == 0


@pytest.mark.usefixtures("fresh")
def test_asking_for_an_npu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With this machine's own XRT, if it has one: the error is a sentence with a remedy."""
    monkeypatch.setenv("TORCH_XDNA_OVERLAY", "/nonexistent.xclbin")
    with pytest.raises(DeviceError, match=r"install|build it with"):
        compiled(Block())(clips())


@torch.no_grad()
def test_shipped_encoder(borrowed: BorrowedXrt) -> None:
    """Through torch.compile, the real pyxrt and AMD's driver library: the bits of `device="array"`."""
    encoder = WhisperForConditionalGeneration.from_pretrained(CHECKPOINT).model.encoder.eval()
    mel = torch.randn(1, encoder.config.num_mel_bins, 2 * encoder.config.max_source_positions)
    found = compiled(encoder)(mel).last_hidden_state
    report = torch_xdna.reports()[-1]
    assert report.dispatches == borrowed.runs == 1 and report.summary() == "encoder: 1 region, 0 eager ops"
    on_array = torch.compile(encoder, backend="xdna", options={"device": "array"})(mel)
    assert torch.equal(found, on_array.last_hidden_state)


def test_first_transcript(borrowed: BorrowedXrt) -> None:
    """The last command of the README's list for owners of an NPU."""
    clip = shipped_clips()[0]
    done = CliRunner().invoke(transcribe, ["--device", "npu", clip.path])
    assert done.exit_code == 0, done.output
    assert done.stdout == clip.text + "\n"
    assert "encoder: 1 region, 0 eager ops" in done.stderr and borrowed.runs == 1
