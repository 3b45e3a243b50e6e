"""The profile as a table for people: the totals first, then what takes the time, one line per kind of op."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from torch_xdna.profile.model import PRODUCT_SHARE, OpProfile, Profile, median_of

WIDE = 100  # columns of a terminal that has room for the whole table
MOST = 4  # kinds of op that the summary names
NAMES = {
    "compute": "the cores",
    "stream": "the streams",
    "ddr": "the memory",
    "control": "the controller's pushes",
}

_COUNTED = {
    "dispatches": ("dispatch", "dispatches"),
    "overlay_changes": ("overlay change", "overlay changes"),
}


def show(profile: Profile, console: Console, every_op: bool = False) -> None:
    """Print totals and the table; `every_op`: a line per op, not one for the same op of all layers."""
    for line in headline(profile):
        console.print(line, highlight=False)
    for line in reasons(profile):
        console.print(line, highlight=False)
    console.print()
    console.print(_table(profile, every_op, console.width < WIDE))
    console.print(_layers(profile), highlight=False)
    for line in notes(profile):
        console.print(Text(line, style="dim"))


def headline(profile: Profile) -> list[str]:
    """Totals, in three lines."""
    factor = f", {profile.real_time_factor:.0f} x real time" if profile.real_time_factor else ""
    context = f", context {profile.context}" if profile.context else ""
    lines = [
        f"[bold]{profile.name}[/bold]{context}: [bold]{_ms(profile.seconds)} ms[/bold]{factor} "
        f"(modelled at {profile.clock_ghz:g} GHz, {profile.columns} columns, {profile.source}; not measured)",
        f"{profile.efficiency():.1%} of the array's bf16 peak, {profile.bytes / 1e6:.0f} MB moved, "
        f"{profile.dispatches} dispatch{'es' if profile.dispatches != 1 else ''} "
        f"({_ms(profile.dispatch_seconds)} ms), {profile.overlay_changes} overlay changes"
        + (
            f", {profile.instruction_bytes / 1e3:.0f} KB of instructions" if profile.instruction_bytes else ""
        ),
    ]
    if profile.better_gemm_seconds and profile.stock_kernels_seconds:
        lines.append(
            f"closed form: {_ms(profile.stock_kernels_seconds)} ms with the kernels of before at their rates, "
            f"{_ms(profile.better_gemm_seconds)} ms with the best published GEMM kernel"
        )
    if profile.host_seconds is not None:
        lines.append(f"measured on this machine's {profile.host_device}: {_ms(profile.host_seconds)} ms")
    if profile.host_counts:
        lines.append(f"counted per call: {_counts(profile.host_counts)}")
    return lines


def _counts(counts: dict[str, float]) -> str:
    """As `1 dispatch, 0 overlay changes, 0.50 MB synced to the device, 1.57 MB from it, 3.1 ms of CPU`."""
    parts = [
        f"{counts[name]:.3g} {one if counts[name] == 1 else many}"
        for name, (one, many) in _COUNTED.items()
        if name in counts
    ]
    if "bytes_to_device" in counts:
        to, back = counts["bytes_to_device"] / 1e6, counts["bytes_from_device"] / 1e6
        parts.append(f"{to:.2f} MB synced to the device, {back:.2f} MB from it")
    if "cpu_seconds" in counts:
        parts.append(f"{1e3 * counts['cpu_seconds']:.1f} ms of this thread's CPU time")
    return ", ".join(parts)


def reasons(profile: Profile) -> list[str]:
    """What takes the time, and why, in two or three lines."""
    roles = {
        role: sum(op.seconds for op in ops) / profile.seconds for role, ops in profile.by("role").items()
    }
    ranked = sorted(roles.items(), key=lambda item: -item[1])
    named = [(role, share) for role, share in ranked[:MOST] if share >= 0.03]
    rest = 1 - sum(share for _, share in named)
    parts = [f"[bold]{short(role)} {share:.0%}[/bold]" for role, share in named]
    lines = ["[bold]what:[/bold] " + ", ".join([*parts, f"all else {rest:.0%}"])]
    if profile.core_seconds:
        total = sum(profile.core_seconds.values())
        shares = [f"{name} {seconds / total:.0%}" for name, seconds in profile.core_seconds.items()]
        lines.append("[bold]why:[/bold]  a core's time: " + ", ".join(shares))
    limit = _limit(profile)
    return [*lines, f"[bold]limit:[/bold] {limit}"] if limit else lines


def short(role: str) -> str:
    """`q_proj+k_proj+v_proj` of `self_attn.q_proj+k_proj+v_proj`: no other part of a layer has these."""
    return role.removeprefix("self_attn.")


def _limit(profile: Profile) -> str:
    """The resource that decides, and how far the next one is."""
    needs: dict[str, float] = {}
    for op in profile.ops:
        for name, seconds in op.bounds.items():
            needs[name] = needs.get(name, 0.0) + seconds
    ranked = sorted(needs, key=lambda name: -needs[name])
    if len(ranked) < 2:
        return ""
    kernel = f" (the product kernel: {PRODUCT_SHARE:.0%} of peak)" if ranked[0] == "compute" else ""
    share = needs[ranked[1]] / profile.seconds
    return f"{NAMES[ranked[0]]} decide{kernel}; {NAMES[ranked[1]]} alone would take {share:.0%} of the time"


def notes(profile: Profile) -> list[str]:
    """What a reader needs to judge the numbers."""
    return [
        "of peak: useful products over 128 MAC/cycle/core; busy: cores in kernels; bound: what is longest alone (next)",
        "kernels: loops scheduled for the core, with what compilers lost (python -m torch_xdna.kernels_xdna1)",
    ]


def _table(profile: Profile, every_op: bool, narrow: bool) -> Table:
    """`narrow`: without what a terminal of 80 columns has no room for."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    groups = {op.name: [op] for op in profile.ops} if every_op else _by_role(profile)
    columns = [_cells(profile, name, ops, every_op) for name, ops in groups.items()]
    rest = profile.seconds - sum(op.seconds for op in profile.ops)
    columns.append({"op": "dispatch, last tokens", "ms": _ms(rest), "share": f"{rest / profile.seconds:.1%}"})
    heads = [head for head in columns[0] if not (narrow and head in ("shape", "calls", "ms each", "MB"))]
    if profile.host_seconds is None:
        heads.remove("measured ms")
    for head in heads:
        text = head in ("op", "shape", "bound (next)")
        table.add_column(head, justify="left" if text else "right", no_wrap=head != "op")
    for cells in columns:
        table.add_row(*(cells.get(head, "") for head in heads))
    return table


def _cells(profile: Profile, name: str, ops: list[OpProfile], every_op: bool) -> dict[str, str]:
    seconds, macs = sum(op.seconds for op in ops), sum(op.macs for op in ops)
    busy = median_of([op.busy for op in ops])
    measured = [op.host_seconds for op in ops if op.host_seconds is not None]
    return {
        "op": name if every_op else short(name),
        **({"shape": ops[0].shape} if every_op else {}),
        "calls": str(len(ops)),
        "ms each": _ms(seconds / len(ops)),
        "ms": _ms(seconds),
        "share": f"{seconds / profile.seconds:.1%}",
        "of peak": _percent(profile.efficiency(macs, seconds)) if macs else "",
        "MB": f"{sum(op.bytes for op in ops) / 1e6:.1f}",
        "busy": "" if busy is None else f"{busy:.0%}",
        "bound (next)": _bound(ops),
        "measured ms": _ms(sum(measured)) if measured else "",
    }


def _by_role(profile: Profile) -> dict[str, list[OpProfile]]:
    groups: dict[str, list[OpProfile]] = {}
    for op in profile.ops:
        groups.setdefault(op.role, []).append(op)
    return groups


def _layers(profile: Profile) -> str:
    layers = {name: ops for name, ops in profile.by("layer").items() if name != "other"}
    if not layers:
        return ""
    seconds = [sum(op.seconds for op in ops) for ops in layers.values()]
    bounds: dict[str, float] = {}
    for op in profile.ops:
        bounds[op.bound] = bounds.get(op.bound, 0.0) + op.seconds
    parts = ", ".join(f"{name} {value / profile.seconds:.0%}" for name, value in bounds.items() if name)
    spread = f"{_ms(min(seconds))} to {_ms(max(seconds))} ms each"
    return f"{len(layers)} layers, {spread}; time by what bounds the op: {parts}"


def _bound(ops: list[OpProfile]) -> str:
    """The bound and how much the next resource has left."""
    first = ops[0]
    ranked = sorted(first.bounds.items(), key=lambda item: -item[1])
    if len(ranked) < 2 or not ranked[0][1]:
        return first.bound
    return f"{ranked[0][0]} ({ranked[1][0]} {ranked[1][1] / ranked[0][1]:.0%})"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.1f}"
