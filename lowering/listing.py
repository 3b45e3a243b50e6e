"""Each stage of lowering as text; of a program: sizes, steps, and every transfer where a reader looks for it.

`summary` has one line per step. `by_step` shows under each step its header and, per column and path, its
transfers with the command that pushes and the command that waits for each. `in_order` shows the commands as
the controller executes them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence

from torch_xdna.lowering.buffers import Buffer
from torch_xdna.lowering.commands.commands import Command, Dma, Wait
from torch_xdna.lowering.commands.decode import describe, pattern
from torch_xdna.lowering.host_data.fills import HeaderFill
from torch_xdna.lowering.limits import BLOCK_BYTES
from torch_xdna.lowering.overlay.header import describe as describe_header
from torch_xdna.lowering.program import Program
from torch_xdna.lowering.steps.kinds import reads, writes
from torch_xdna.lowering.steps.plan import StepList
from torch_xdna.lowering.streams.step_streams import StepStreams

PATH_OF = {("MM2S", 0): "A", ("MM2S", 1): "B", ("S2MM", 0): "C"}


def summary(program: Program) -> str:
    """Sizes, and one line per step."""
    transfers = sum(isinstance(c, Dma) for c in program.commands)
    waits, size = sum(isinstance(c, Wait) for c in program.commands), program.instruction_bytes
    dispatches = "1 dispatch" if len(program.dispatches) == 1 else f"{len(program.dispatches)} dispatches"
    lines = [
        f"program {program.name}: {len(program.steps)} steps on {program.columns} columns, {dispatches}",
        f"  {size:,} bytes of instructions: {transfers:,} transfers, {waits:,} waits",
        f"  {program.weights_bytes:,} bytes of weights, {program.activations_bytes:,} bytes of activations",
        "",
        f"step  {'kind':<10} {'bytes A':>11} {'bytes B':>11} {'bytes C':>11} {'trips':>6}  name, shape",
    ]
    for index, op in enumerate(program.steps):
        moved = f"{op.a_bytes:11,} {op.b_bytes:11,} {op.c_bytes:11,}"
        lines.append(f"{index:4d}  {op.kind:<10} {moved} {op.trips:6d}  {op.name}: {op.shape}")
    return "\n".join(lines)


def text(program: Program) -> str:
    """All of a program: `summary`, then `by_step`."""
    return "\n".join([summary(program), "", *by_step(program)])


def by_step(program: Program) -> Iterator[str]:
    """Lines: per step a heading, its header, and per column and path its transfers in order."""
    waited = wait_of(program.commands)
    transfers: dict[tuple[int, int, str], list[int]] = defaultdict(list)
    for index, (command, step) in enumerate(zip(program.commands, program.step_of_command)):
        if isinstance(command, Dma):
            transfers[step, command.column, PATH_OF[command.direction, command.channel]].append(index)
    headers = [filler for _, filler in program.weights if isinstance(filler, HeaderFill)]
    for step, (op, filler) in enumerate(zip(program.steps, headers)):
        yield f"step {step}: {op.kind} {op.name}: {op.shape}"
        yield f"  header {describe_header(filler.words)}"
        for column in range(program.columns):
            for path in "ABC":
                found = transfers[step, column, path]
                yield f"  column {column} {path}: {len(found)} transfers"
                for index in found:
                    dma = program.commands[index]
                    assert isinstance(dma, Dma)
                    arrow = "<-" if path == "C" else "->"
                    place = f"arg{dma.arg}+{dma.offset * dma.element_bytes:#09x}"
                    buffer = dma.label.removeprefix(f"{op.name} {path} ")
                    span = f"push {index:5d} wait {waited[index]:5d}"
                    yield f"    {span}  bd {dma.bd:2d} {arrow} {place} {pattern(dma)}  ; {buffer}"
        yield ""


def in_order(program: Program) -> Iterator[str]:
    """Lines: commands as executed, a heading wherever another step's commands begin."""
    current = -1
    seen: set[int] = set()
    for index, (command, step) in enumerate(zip(program.commands, program.step_of_command)):
        if step != current:
            again = " (continued)" if step in seen else ""
            yield f"; step {step} {program.steps[step].kind} {program.steps[step].name}{again}"
            current = step
            seen.add(step)
        yield f"{index:6d}  {describe(command)}"


def wait_of(commands: Iterable[Command]) -> dict[int, int]:
    """Index of each transfer with a token -> of the wait that takes it: a channel's tokens come in order."""
    pushed: dict[tuple[int, str, int], deque[int]] = defaultdict(deque)
    waits: dict[int, int] = {}
    for index, command in enumerate(commands):
        if isinstance(command, Dma) and command.token:
            pushed[command.column, command.direction, command.channel].append(index)
        elif isinstance(command, Wait):
            waits[pushed[command.column, command.direction, command.channel].popleft()] = index
    return waits


def steps_text(planned: StepList) -> str:
    """A line for each step with the buffers that it reads and writes: name, kernel argument + offset, blocks."""
    lines = []
    for index, step in enumerate(planned.steps):
        lines.append(f"step {index}: {step.kind} {step.name}: {step.shape}")
        lines += [
            f"  {verb} {_buffer(b)}"
            for verb, bs in (("reads", reads(step)), ("writes", writes(step)))
            for b in bs
        ]
    lines += [f"weights {_buffer(buffer)}" for buffer, _ in planned.weights]
    return "\n".join(lines)


def streams_text(planned: StepList, all_streams: Sequence[StepStreams]) -> str:
    """Per step its header, its kernel calls, and per column and path its patterns in words: base, loops (count x step),
    run."""
    lines = []
    for index, (step, streams) in enumerate(zip(planned.steps, all_streams)):
        lines.append(f"step {index}: {step.kind} {step.name}: {streams.trips} trips")
        lines.append(f"  header {describe_header(streams.header)}")
        lines.append("  calls " + ", ".join(f"{name} {count}" for name, count in streams.calls.items()))
        for (column, path), accesses in sorted(streams.by_path.items()):
            for access in accesses:
                p = access.pattern
                loops = " ".join(f"{count}x{step_}" for count, step_ in p.loops)
                also = f" + {access.also.name}" if access.also else ""
                lines.append(
                    f"  column {column} {path}: {access.buffer.name}{also} {p.base} [{loops}] {p.run}"
                )
    return "\n".join(lines)


def _buffer(buffer: Buffer) -> str:
    where = f"arg{buffer.arg}+{buffer.offset * BLOCK_BYTES:#x}" if buffer.offset >= 0 else "not placed"
    return f"{buffer.name or 'buffer'}: {where}, {buffer.blocks} blocks"
