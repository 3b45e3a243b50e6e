"""Builds profiles: from a model's name or configuration, from regions, from a compiled model's report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch_xdna import model_config as configuration
from torch_xdna.errors import XdnaError
from torch_xdna.lowering import lower
from torch_xdna.lowering.commands.commands import Dma
from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.ops import Conv1d, Region
from torch_xdna.lowering.streams.split import LONGEST_S, SLOWEST_GHZ
from torch_xdna.lowering.time import Costs
from torch_xdna.lowering.time.estimate import dispatch_seconds
from torch_xdna.lowering.time.gemm import checked_clock
from torch_xdna.lowering.time.overlay_ops import BLOCK_BYTES, OpTime, time_region
from torch_xdna.lowering.whisper import EncoderConfig, encoder_config, encoder_region
from torch_xdna.profile.model import OpProfile, Profile

FRAMES_PER_SECOND = 50  # encoder frames
MEL_PER_SECOND = 100
CLOCK_GHZ = 1.03


def profile_model(
    model: str | EncoderConfig | Any,
    *,
    context: int = 1500,
    clock_ghz: float = CLOCK_GHZ,
    columns: int = 4,
    device: str | None = None,
    simulate: bool = True,
) -> Profile:
    """The profile of a Whisper encoder. `model`: a name (`base`), a directory with a config.json, a
    configuration.

    `device`: also run the encoder on this device of this machine (with random weights) and put its measured
    time beside the modelled one. `simulate=False`: the closed form instead of the array simulator. Raises
    XdnaError.
    """
    config = _config(model)
    if context < 1:
        raise XdnaError(f"context {context}: an encoder needs at least one frame")
    region = encoder_region(config, context)
    name = f"whisper {config.name}"
    return profile_regions(
        [region], name=name, audio_seconds=context / FRAMES_PER_SECOND, context=context, clock_ghz=clock_ghz,
        columns=columns, device=device, simulate=simulate,
    )  # fmt: skip


def profile_report(
    report: Any, *, clock_ghz: float = CLOCK_GHZ, columns: int = 4, simulate: bool = True, **options: Any
) -> Profile:
    """The profile of the regions in a compiled model's report; options as for `profile_regions`."""
    regions = report.region_list
    mel = [region for region in regions if any(isinstance(op, Conv1d) for op in region.ops)]
    if mel and "audio_seconds" not in options:
        options["audio_seconds"] = mel[0].value(mel[0].inputs[0]).rows / MEL_PER_SECOND
    options.setdefault("name", report.name)
    options.setdefault("host_counts", report.per_call())
    return profile_regions(regions, clock_ghz=clock_ghz, columns=columns, simulate=simulate, **options)


def profile_regions(
    regions: Sequence[Region],
    *,
    name: str = "",
    clock_ghz: float = CLOCK_GHZ,
    columns: int = 4,
    device: str | None = None,
    simulate: bool = True,
    audio_seconds: float | None = None,
    context: int | None = None,
    host_counts: dict[str, float] | None = None,
) -> Profile:
    """The profile of regions that run one after another, one dispatch each unless that would take too long. Raises
    XdnaError.

    `host_counts`: what calls so far asked of the device, per call; measured anew with `device`.
    """
    if not regions:
        raise XdnaError("profile: nothing ran on the device, so there is nothing to profile; see the report")
    try:
        costs = Costs(checked_clock(clock_ghz))
    except ValueError as error:
        raise XdnaError(f"profile: {error}") from error
    per_dispatch = dispatch_seconds("stream")
    ops: list[OpProfile] = []
    begin = 0.0
    dispatches = 0
    instruction_bytes = weight_bytes = 0
    traces = []
    work: dict[str, float] = {}
    for region in regions:
        closed = time_region(region, costs, columns)
        count = _dispatches(region, columns, simulate)
        dispatches += count
        begin += per_dispatch * count
        if simulate:
            made, seconds, run = _from_simulator(region, closed, columns, costs, begin)
            traces.append((begin, run))
            for what, cycles in run.work(costs).items():
                work[what] = work.get(what, 0.0) + costs.seconds(cycles)
            instruction_bytes += run.program.words.nbytes
            weight_bytes += run.program.weights_bytes
        else:
            made, seconds = _from_closed_form(closed, begin)
        ops += made
        begin += seconds
    if device is not None:
        from torch_xdna.profile.host import host_times, with_host_times

        measured = [host_times(region, device) for region in regions]
        ops = with_host_times(ops, measured)
        names = {name for times in measured for name in times.counts}
        host_counts = {name: sum(times.counts.get(name, 0.0) for times in measured) for name in sorted(names)}
    closed_total = _closed_seconds(regions, costs, columns) + per_dispatch * dispatches
    better = _closed_seconds(regions, Costs(clock_ghz, better_gemm=True), columns) + per_dispatch * dispatches
    stock = (
        _closed_seconds(regions, Costs(clock_ghz, stock_kernels=True), columns) + per_dispatch * dispatches
    )
    return Profile(
        name or regions[0].name, tuple(ops), begin, clock_ghz, columns,
        source="array simulator" if simulate else "closed form",
        audio_seconds=audio_seconds, context=context,
        dispatches=dispatches, dispatch_seconds=per_dispatch * dispatches, overlay_changes=0,
        instruction_bytes=instruction_bytes or None, weight_bytes=weight_bytes or None,
        closed_form_seconds=closed_total, better_gemm_seconds=better,
        stock_kernels_seconds=stock,
        host_counts=host_counts or {}, host_device=device,
        host_seconds=sum(m.seconds for m in measured) if device is not None else None,
        core_seconds=work, trace=traces or None,
    )  # fmt: skip


def _config(model: Any) -> EncoderConfig:
    folder = Path(model) if isinstance(model, str) else None
    try:
        if folder is not None and folder.is_dir():
            return replace(encoder_config(configuration.read(folder)), name=folder.resolve().name)
        return encoder_config(model)
    except ValueError as error:
        raise XdnaError(str(error)) from error


def _from_simulator(
    region: Region, closed: list[OpTime], columns: int, costs: Costs, begin: float
) -> tuple[list[OpProfile], float, Any]:
    from torch_xdna.profile.simulated import simulate

    try:
        run = simulate(region, columns, costs)
    except LoweringError as error:
        raise XdnaError(f"profile: {error}") from error
    known = {op.name: op for op in closed}
    ops = []
    last = 0.0
    for index, facts in enumerate(run.program.steps):
        end = max(run.ends[index], last)
        twin = known.get(facts.name)
        reads, writes = facts.a_bytes + facts.b_bytes, facts.c_bytes
        bounds = {name: costs.seconds(cycles) for name, cycles in run.bounds[index].items()}
        memory = max(costs.read_seconds(reads, BLOCK_BYTES), costs.write_seconds(writes))
        bounds["ddr"] = twin.bounds["ddr"] if twin else memory
        steps = zip(run.program.step_of_command, run.program.commands)
        tasks = sum(step == index and isinstance(command, Dma) for step, command in steps)
        bounds["control"] = costs.seconds(tasks * (costs.task_cycles + costs.sync))
        ops.append(
            OpProfile(
                facts.name, facts.kind, facts.shape, begin + costs.seconds(last), costs.seconds(end - last),
                twin.macs if twin else 0, facts.bytes_moved, bounds, run.busy[index],
            )
        )  # fmt: skip
        last = end
    return ops, run.stats.modelled_seconds, run


def _dispatches(region: Region, columns: int, lowered: bool) -> int:
    """Into how many dispatches the region is split for the driver's limit; about that many if it is not lowered."""
    seconds = _closed_seconds([region], Costs(SLOWEST_GHZ), columns)
    if not lowered or seconds < LONGEST_S / 2:
        return 1 + int(seconds / LONGEST_S)
    try:
        return len(lower(region, columns=columns).dispatches)
    except LoweringError as error:
        raise XdnaError(f"profile: {error}") from error


def _from_closed_form(closed: list[OpTime], begin: float) -> tuple[list[OpProfile], float]:
    ops = []
    start = begin
    for op in closed:
        moved = op.bytes_read + op.bytes_written
        ops.append(OpProfile(op.name, op.kind, op.shape, start, op.seconds, op.macs, moved, dict(op.bounds)))
        start += op.seconds
    return ops, start - begin


def _closed_seconds(regions: Sequence[Region], costs: Costs, columns: int) -> float:
    return sum(op.seconds for region in regions for op in time_region(region, costs, columns))
