"""What the array executes one after another: a few kinds of steps over buffers of blocks.

`lowering.steps.plan` turns a region into steps; the modules of `lowering.streams` turn a step into streams.
Sizes are in blocks (8192 bytes) unless they say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch_xdna.kernels_xdna1.contract import BlockOrder
from torch_xdna.lowering.buffers import ACTIVATIONS, Buffer, KeyValues, Matrix, Planes
from torch_xdna.lowering.host_data.conv_input import ConvInput


@dataclass(frozen=True)
class Panels:
    """Consecutive output block columns of a product: their weights and where the results go.

    `order` A: `target` is a `Matrix`; KEYS, VALUES: the K or V blocks of a `KeyValues`.
    `weights` holds `count` panels of `k_blocks + 1` blocks each; `count` is a multiple of 4.
    """

    target: Matrix | KeyValues
    order: BlockOrder
    count: int
    weights: Buffer
    first: int = 0  # block of the target where panel 0 begins (order 0 only)


@dataclass(eq=False)
class Step:
    """Base. `name` and `shape` are for people; `header` is the buffer of the header object."""

    name: str
    shape: str
    header: Buffer

    @property
    def kind(self) -> str:
        """gemm, reorder, gather, zeros, attention, layer_norm, softmax, gelu or add."""
        raise NotImplementedError


@dataclass(eq=False)
class GemmStep(Step):
    """All panels over `groups` row groups of `x`; `residual` is added to the first panel set (then the only
    one).

    `x` None: no k blocks; the residual alone passes through the accumulator (a change of order, exact), from a
    matrix or gathered from a host input's frames. Without a residual either, zeros are written.
    `valid`: rows outside are written as zeros.
    """

    x: Planes | None
    groups: int
    panels: list[Panels] = field(default_factory=list)
    residual: Matrix | ConvInput | None = None
    valid: tuple[int, int] = (0, (1 << 31) - 1)

    @classmethod
    def reorder(cls, name: str, shape: str, header: Buffer, panels: list[Panels], source: Matrix) -> GemmStep:
        """The blocks of `source` in the order of the panels."""
        return cls(name, shape, header, None, source.groups, panels, residual=source)

    @classmethod
    def gather(
        cls, name: str, shape: str, header: Buffer, panels: list[Panels], source: ConvInput, groups: int
    ) -> GemmStep:
        """A host input's frames as an ordinary matrix."""
        return cls(name, shape, header, None, groups, panels, residual=source)

    @classmethod
    def zeros(cls, name: str, shape: str, header: Buffer, panels: list[Panels], groups: int) -> GemmStep:
        """Zeros over the panels."""
        return cls(name, shape, header, None, groups, panels)

    @property
    def k_blocks(self) -> int:
        return self.x.k_blocks * self.x.planes if self.x else 0

    @property
    def kind(self) -> str:
        if self.x or not self.residual:
            return "gemm" if self.x else "zeros"
        return "reorder" if isinstance(self.residual, Matrix) else "gather"


@dataclass(eq=False)
class AttentionStep(Step):
    """`keys` valid keys; heads are block columns of `q` and `out`. `spare`: 4 blocks per column, for unwanted
    results."""

    q: Matrix
    kv: KeyValues
    out: Matrix
    heads: int
    keys: int
    scale: float
    spare: Buffer

    @property
    def kind(self) -> str:
        return "attention"


@dataclass(eq=False)
class RowStep(Step):
    """layer_norm, softmax, gelu or add over whole row blocks; `valid_columns` true columns. `vectors`: gamma and beta
    of a layer_norm, where they do not follow its header."""

    op: str  # layer_norm, softmax, gelu, add
    x: Matrix
    out: Matrix
    valid_columns: int
    y: Matrix | None = None
    eps: float = 0.0
    vectors: Buffer | None = None

    @property
    def kind(self) -> str:
        return self.op


def reads(step: Step) -> list[Buffer]:
    """The activation buffers that a step reads."""
    if isinstance(step, GemmStep):
        found = [step.x.matrix.buffer] if step.x else []
        found += [step.residual.buffer] if step.residual else []
    elif isinstance(step, AttentionStep):
        found = [step.q.buffer, step.kv.buffer]
    else:
        assert isinstance(step, RowStep)
        found = [step.x.buffer] + ([step.y.buffer] if step.y else [])
    return [b for b in found if b.arg == ACTIVATIONS]


def writes(step: Step) -> list[Buffer]:
    """The activation buffers that a step writes."""
    if isinstance(step, GemmStep):
        return list(dict.fromkeys(p.target.buffer for p in step.panels))
    if isinstance(step, AttentionStep):
        return [step.out.buffer, step.spare]
    assert isinstance(step, RowStep)
    return [step.out.buffer]
