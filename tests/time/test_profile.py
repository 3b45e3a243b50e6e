"""The profile: per op from the executed program, as table, JSON, pictures and trace; ranges in torch.profiler."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from math import ceil

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from torch_xdna.cli import cli
from torch_xdna.devices.profiler_range import PREFIX, device_range
from torch_xdna.errors import XdnaError
from torch_xdna.lowering import lower
from torch_xdna.lowering.time import Costs
from torch_xdna.lowering.whisper import MODELS, encoder_region
from torch_xdna.profile import profile_model, profile_regions, profile_report
from torch_xdna.profile.host import host_times
from torch_xdna.profile.pictures import scaling, write_all
from torch_xdna.profile.terminal import reasons, short, show

TINY = replace(MODELS["tiny"], layers=1)
CONTEXT = 80


@pytest.fixture(scope="module")
def profile():
    return profile_model(TINY, context=CONTEXT, device="emulator")


def test_ops_are_the_programs_and_fill_its_time(profile):
    program = lower(encoder_region(TINY, CONTEXT), columns=4)
    assert [op.name for op in profile.ops] == [op.name for op in program.steps]
    assert profile.instruction_bytes == program.words.nbytes and profile.dispatches == 1
    end = profile.dispatch_seconds
    for op in profile.ops:
        assert op.start == pytest.approx(end)
        end += op.seconds
    # What is left after the last result is the last token.
    assert end <= profile.seconds <= end + 5e-6
    assert profile.seconds == pytest.approx(profile.closed_form_seconds, rel=0.15)
    assert profile.better_gemm_seconds < profile.closed_form_seconds < profile.stock_kernels_seconds


def test_bounds_explain_the_time(profile):
    for op in profile.ops:
        assert op.bounds[op.bound] > 0 and 0 < op.busy <= 1
        assert max(op.bounds["compute"], op.bounds["stream"]) <= 1.2 * op.seconds
    by_kind = profile.by("kind")
    assert {op.bound for op in by_kind["gemm"]} <= {"compute", "stream", "control"}
    assert all(op.macs == 0 for op in by_kind["layer_norm"])
    macs = sum(op.macs for op in profile.ops)
    frames, width = CONTEXT, TINY.width
    layer = 4 * width * width + 2 * width * TINY.ffn + 2 * width * frames
    stem = 2 * 3 * TINY.mel * width + 3 * width * width
    assert macs == frames * (layer + stem)


def test_measured_host_time_is_beside_and_called_so(profile):
    assert profile.host_device == "emulator" and profile.host_seconds > 0
    measured = [op.host_seconds for op in profile.ops if op.host_seconds is not None]
    without = [op.name for op in profile.ops if op.host_seconds is None]
    assert without == ["conv1 input", "conv1 odd rows before", "conv1 even rows"], "one op on the host"
    assert 0 < sum(measured) <= profile.host_seconds * 1.001
    assert profile.host_counts == {}, "nothing is submitted to the emulator"


def test_json_says_modelled(profile):
    found = json.loads(json.dumps(profile.as_dict()))
    assert found["modelled"] is True and found["source"] == "array simulator"
    assert found["inputs"] == {"context": CONTEXT, "clock_ghz": 1.03, "columns": 4}
    shares = sum(op["share"] for op in found["ops"])
    assert shares == pytest.approx(1 - found["dispatch_seconds"] / found["seconds"], abs=0.01)
    assert found["layers"]["layer 0"] == pytest.approx(
        sum(op["seconds"] for op in found["ops"] if op["layer"] == "layer 0")
    )


def test_table_names_every_role_and_its_bound(profile):
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(profile, console)
    text = console.export_text()
    assert (
        "modelled at 1.03 GHz" in text
        and "not measured" in text
        and "measured on this machine's emulator" in text
    )
    for role in profile.by("role"):
        assert short(role) in text
    assert "compute (stream" in text and "measured ms" in text


def test_the_summary_names_what_takes_the_time_and_why(profile):
    lines = reasons(profile)
    longest = max(profile.by("role").items(), key=lambda item: sum(op.seconds for op in item[1]))[0]
    assert lines[0].startswith("[bold]what:[/bold] [bold]" + longest.removeprefix("self_attn."))
    shares = [int(share) for share in re.findall(r"(\d+)%", lines[0])]
    assert sum(shares) == pytest.approx(100, abs=4)
    assert "matrix products" in lines[1] and "waiting" in lines[1]
    assert "the cores decide" in lines[2] and "alone would take" in lines[2]


def test_the_time_of_a_core_adds_up(profile):
    """Against the calls that a layer makes: 80 rows are one group of 4 row blocks, of which two have rows."""
    costs, work = Costs(profile.clock_ghz), profile.core_seconds
    assert sum(work.values()) == pytest.approx(profile.seconds - profile.dispatch_seconds, rel=0.01)
    qkv, out, fc1, fc2, conv2 = 3 * 8 / 4 * 6, 8 / 4 * 6, 24 / 4 * 6, 8 / 4 * 24, 8 / 4 * 18
    blocks_of_keys, trips = 2, ceil(6 / 4)
    steps = qkv + out + fc1 + fc2 + conv2 + 2 * blocks_of_keys * trips
    step = costs.kernel_cycles("gemm_step")
    assert costs.seconds(steps * step) < work["matrix products"] < 1.2 * costs.seconds(steps * step)
    softmax = blocks_of_keys * trips * (costs.kernel_cycles("attn_k") - step)
    assert work["softmax"] == pytest.approx(costs.seconds(softmax), rel=0.05)


def test_pictures_and_trace(profile, tmp_path):
    written = write_all(profile, tmp_path)
    assert {path.name for path in written} == {
        "profile.json",
        "roofline.svg",
        "timeline.png",
        "trace.json.gz",
    }
    assert all(path.stat().st_size > 1000 for path in written)
    assert "modelled at 1.03 GHz" in (tmp_path / "roofline.svg").read_text()
    with gzip.open(tmp_path / "trace.json.gz", "rt") as file:
        trace = json.load(file)
    names = {event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"}
    assert "ops" in names and sum(name.startswith("core") for name in names) == 16
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert max(span["ts"] + span["dur"] for span in spans) <= 1e6 * profile.seconds * 1.001
    assert "not measured" in trace["otherData"]["time"]
    scaling(("tiny",), tmp_path / "scaling.svg", contexts=(100, 200))
    assert "modelled" in (tmp_path / "scaling.svg").read_text()


def test_columns_and_clock(profile):
    slow = profile_model(TINY, context=CONTEXT, columns=1, simulate=False)
    assert slow.seconds > profile.seconds and slow.source == "closed form" and slow.trace is None
    fast = profile_model(TINY, context=CONTEXT, clock_ghz=1.8, simulate=False)
    assert fast.seconds < profile.closed_form_seconds


def test_reports_give_profiles():
    class Report:
        name = "encoder"
        region_list = (encoder_region(TINY, CONTEXT),)

        def per_call(self):
            return {"dispatches": 1.0, "overlay_changes": 0.0}

    found = profile_report(Report(), simulate=False)
    assert found.as_dict()["host_per_call"] == {"dispatches": 1.0, "overlay_changes": 0.0}
    assert found.name == "encoder" and found.audio_seconds == pytest.approx(CONTEXT / 50)
    assert found.seconds == pytest.approx(profile_model(TINY, context=CONTEXT, simulate=False).seconds)


def test_refusals_are_one_sentence(tmp_path):
    with pytest.raises(XdnaError, match="nothing to profile"):
        profile_regions([])
    with pytest.raises(XdnaError, match="not known"):
        profile_model("enormous")
    with pytest.raises(XdnaError, match=r"no config\.json"):
        profile_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(XdnaError, match="only Whisper models"):
        profile_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(XdnaError, match="is not valid JSON"):
        profile_model(str(tmp_path))
    with pytest.raises(XdnaError, match="GHz"):
        profile_model("tiny", clock_ghz=1030)


def test_ranges_appear_only_under_a_profiler():
    region = encoder_region(TINY, CONTEXT)
    times = host_times(region, "emulator")
    linears = {op.name for op in region.ops if op.name.endswith(("fc1", "fc2", "out_proj"))}
    assert linears <= set(times.ops)
    assert device_range("quiet") is device_range("as well")
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler,
        device_range("loud"),
    ):
        torch.ones(1)
    assert PREFIX + "loud" in {event.key for event in profiler.key_averages()}


def test_a_compiled_model_shows_its_region():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 64))
    compiled = torch.compile(model, backend="xdna", options={"device": "emulator"})
    x = torch.randn(8, 64)
    with torch.no_grad():
        compiled(x)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            compiled(x)
    ours = [event.key for event in profiler.key_averages() if event.key.startswith(PREFIX)]
    assert any(key.endswith("on emulator") for key in ours)
    torch._dynamo.reset()


def run(*arguments: str):
    return CliRunner().invoke(cli, list(arguments))


def test_command_line(tmp_path):
    out = run("profile", "tiny", "--context", "20", "--closed-form", "--json")
    assert out.exit_code == 0 and json.loads(out.output)["modelled"] is True
    out = run("profile", "tiny", "--context", "20", "--closed-form", "--ops", "--out", str(tmp_path / "o"))
    assert out.exit_code == 0 and "layers.3.fc2" in out.output and (tmp_path / "o" / "profile.json").is_file()
    asked = ["gemm", "512", "512", "512", "--tile", "64,64,32", "--b", "row-major", "--clock", "1.8"]
    out = run("estimate", *asked, "--dispatch", "single", "--json")
    found = json.loads(out.output)
    assert found["modelled"] is True and found["inputs"]["tile"] == [64, 64, 32]
    out = run("estimate", "encoder", "base", "--context", "1500", "--clock", "1.03")
    assert out.exit_code == 0 and "not measured" in out.output
    out = run("estimate", "memcpy", "1048576", "--read-only", "--run", "16", "--json")
    assert json.loads(out.output)["bound"] == "stream_in"


@pytest.mark.parametrize(
    "arguments",
    [
        ("estimate", "gemm", "64", "64", "64", "--tile", "64"),
        ("estimate", "gemm", "64", "64", "64", "--dtype", "fp8"),
        ("estimate", "gemm", "64", "64", "64", "--dispatch", "pigeon"),
        ("estimate", "encoder", "gigantic"),
        ("estimate", "memcpy", "64", "--clock", "1800"),
        ("profile", "gigantic"),
    ],
)
def test_mistakes_are_refused(arguments):
    out = run(*arguments)
    assert isinstance(out.exception, XdnaError)
