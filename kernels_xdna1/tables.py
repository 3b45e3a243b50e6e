"""Tables of `python -m torch_xdna.kernels_xdna1`: kernels, their loops with modelled cycles, traced loops of others."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from torch_xdna.kernels_xdna1 import (
    contract,
    cycles,
    description,
    loops,
    peano_build,
    precedents,
    published,
    sizes,
)

RESTS_ON = {
    "gemm_init": "S30: stores",
    "gemm_step": "S41: 2,969 traced (K3)",
    "gemm_params": "S41: sums in and out",
    "gemm_residual": "S24: an addition as a product",
    "gemm_finish": "S30: fp32 to bf16",
    "attn_k": "S41, and S80: 4,895 traced for a softmax block",
    "attn_finish": "S30",
    "row_stats": "S45: 503 traced for a layer_norm of 1,024",
    "row_apply": "S45",
}
"""Which traced kernel of mlir-aie's record has the form of each of ours; GELU's selections by products have none."""


def show() -> None:
    """All of them; all cycles are modelled."""
    console = Console(width=max(Console().width, 110))
    console.print(_kernels())
    for name, layout in contract.ORDERS.items():
        console.print(f"{name}: {layout}", highlight=False, markup=False)
    console.print(_cycles())
    console.print(
        "before: what the kernels of before were modelled to take, 2.65 times their busiest slot "
        "(`--stock-kernels`). bytes: of all that a call reaches, estimated, off by up to "
        f"{sizes.FACTOR} x either way on code of known size; a core has {peano_build.PROGRAM_BYTES}. "
        "`python -m torch_xdna.lowering.overlay --memory` adds them up for the cores of each overlay.",
        highlight=False,
    )
    console.print(_loops())
    console.print(
        f"A loop takes {loops.SETUP} + its first trip + (trips - 1) x II. MII: the least II that slots and recurrences "
        f"allow; II: what registers and moves allow, times {loops.PIPELINED_LOSS:g}, which a compiler was seen to lose "
        f"on overlapped loops (stages above 1; on others: {loops.STRAIGHT_LOSS:g}). A call adds "
        f"{cycles.EMPTY_CALL:.0f}.",
        highlight=False,
    )
    console.print(_products())


def show_precedents() -> None:
    """Traced loops of others as the model predicts them, and predicted without their kind."""
    console = Console(width=max(Console().width, 100))
    table = Table(title="Traced on this kind of core by mlir-aie's authors, and modelled")
    for heading in ("row", "record", "kernel", "traced", "modelled", "error", "left out"):
        table.add_column(heading, justify="left" if heading in ("row", "record", "kernel") else "right")
    left_out = precedents.left_out()
    for now, without in zip(precedents.predict(loops.PIPELINED_LOSS, loops.STRAIGHT_LOSS), left_out):
        p = now.precedent
        table.add_row(
            p.id, p.row, p.kernel, f"{p.cycles:.0f}", f"{now.cycles:.0f}", f"{now.error:+.1%}", f"{without.error:+.1%}"
        )  # fmt: skip
    console.print(table)
    middle, worst = precedents.summary(left_out)
    fitted = precedents.fit()
    console.print(
        f"Fitted again: {fitted[0]:.2f} on overlapped loops, {fitted[1]:.2f} on others; in use "
        f"{loops.PIPELINED_LOSS:.2f}, {loops.STRAIGHT_LOSS:.2f}. Each kind of kernel predicted without its own rows: "
        f"median error {middle:.1%}, worst {worst:.1%}.",
        highlight=False,
    )
    for kernel, (traced, estimated) in precedents.sizes().items():
        console.print(f"{kernel}: {traced} bytes of program traced, {estimated} estimated", highlight=False)


def _kernels() -> Table:
    table = Table(title="Kernels of the overlay")
    for heading in ("kernel", "op", "does", "operands (bytes)"):
        table.add_column(heading, no_wrap=heading == "kernel")
    for kernel in description.KERNELS:
        operands = [
            f"{o.name}: {o.order}{' ' + str(o.bytes) if o.is_buffer else ''}{', written' if o.written else ''}"
            for o in kernel.operands
        ]
        table.add_row(kernel.name, kernel.op, kernel.does, "\n".join(operands))
    return table


def _named(name: str, variant: str) -> str:
    return f"{name} ({variant})" if variant else name


def _cycles() -> Table:
    table = Table(title="Modelled cycles per call, estimated bytes of program")
    for heading in (
        "kernel",
        "busiest slot",
        "bound",
        "modelled",
        "before",
        "bytes",
        "rests on (mlir-aie's record)",
    ):
        left = heading.startswith(("kernel", "busiest", "rests"))
        table.add_column(heading, justify="left" if left else "right")
    for name, variant in cycles.variants():
        table.add_row(
            _named(name, variant),
            cycles.busiest(name, variant),
            f"{cycles.bound(name, variant):.0f}",
            f"{cycles.cycles(name, variant):.0f}",
            f"{cycles.stock_cycles(name, variant):.0f}",
            f"{sizes.kernel_bytes(name, variant)}",
            RESTS_ON.get(name, ""),
        )
    return table


def _loops() -> Table:
    table = Table(title="Innermost loops of each call, modelled")
    for heading in ("kernel", "loop", "trips", "times", "MII", "II", "stages", "bound", "cycles"):
        table.add_column(heading, justify="left" if heading in ("kernel", "loop", "bound") else "right")
    for name, variant in cycles.variants():
        for loop in cycles.loops(name, variant):
            table.add_row(
                _named(name, variant), loop["name"], f"{loop['trips']}", f"{loop['times']:g}", f"{loop['mii']}",
                f"{loop['ii']}", f"{loop['stages']}", loop["bound"], f"{loop['cycles']:.0f}",
            )  # fmt: skip
    return table


def _products() -> Table:
    table = Table(title="Products: bound and measured (by others, on hardware)")
    for heading in ("row", "kernel", "m x k x n", "bound", "measured", "factor"):
        table.add_column(heading, justify="left" if heading in ("row", "kernel", "m x k x n") else "right")
    for product in published.PRODUCTS:
        table.add_row(
            product.row,
            product.kernel,
            f"{product.m} x {product.k} x {product.n}",
            f"{product.bound:.0f}",
            f"{product.cycles:.1f}",
            f"{product.factor:.2f}",
        )
    return table
