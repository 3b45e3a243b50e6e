"""Regions whose symbolic batch may be a length: all rows of a call run at once, not a dispatch for each.

A graph's symbolic first dimension is a batch to the device: one clip a dispatch. Where it is a number of tokens
in truth (a linear layer over (1, n, 256), which arrives as (n, 256); (time, batch, features), as torch's own
transformer layers take it), a clip is a row or a few. If each row of the region's results depends on the same row of
its inputs alone, all clips' rows may as well be one matrix. It is lowered when a call needs it, for the next of few
numbers of rows (`ROWS`; more rows are several dispatches), so that lengths that keep changing cost five programs and
packings at most. Few clips of several rows stay a dispatch each: their program is the one that calls of a fixed batch
have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from torch_xdna.lowering.errors import LoweringError
from torch_xdna.lowering.limits import BLOCK
from torch_xdna.lowering.ops import Add, Gelu, LayerNorm, Linear, Param, Region, Softmax

ROWS = (64, 128, 256, 512, 1024)  # numbers of rows that a region is lowered for
REASON = "symbolic: all rows of a call at once"
FEW = 4  # clips of several rows that are a batch and no length
_BY_ROW = (Linear, Gelu, LayerNorm, Softmax, Add)


class Runs(Protocol):
    """A region prepared for a device; `sources`: the tensors that its weights come from."""

    @property
    def executable(self) -> Any: ...

    def run(self, inputs: Sequence[Tensor], sources: Sequence[Tensor]) -> list[Tensor]: ...


def by_row(region: Region, batch: Any) -> bool:
    """Whether to run all clips' rows as one matrix: the batch is symbolic, clips are shorter than a block, and no op
    mixes rows."""
    rows = {v.rows for v in region.values}
    return (
        not isinstance(batch, int)
        and bool(region.inputs)
        and len(rows) == 1
        and max(rows) < BLOCK
        and all(isinstance(op, _BY_ROW) for op in region.ops)
        and (rows == {1} or not _added(region))
    )


def with_rows(region: Region, rows: int) -> Region:
    """The region for `rows` rows; a parameter that is added to each clip's one row is added to all of them."""
    added = _added(region)
    return replace(
        region,
        values=tuple(replace(v, rows=rows) for v in region.values),
        params=tuple(Param(p.name, (rows, *p.shape[1:])) if p.name in added else p for p in region.params),
    )


def _added(region: Region) -> set[str]:
    return {op.y for op in region.ops if isinstance(op, Add) and isinstance(op.y, str)}


class ByRow:
    """A region of `clip` rows for any number of clips. `prepare` gives the region for a number of rows; raises
    LoweringError if the device takes none of `ROWS`."""

    def __init__(self, prepare: Callable[[int], Runs], clip: int) -> None:
        self._prepare, self._clip = prepare, clip
        self._prepared: dict[int, Runs] = {}
        self._rows = ROWS[: 1 + self._largest()]

    @property
    def executables(self) -> list[Any]:
        """What the calls so far needed."""
        return [p.executable for p in list(self._prepared.values())]

    @property
    def executable(self) -> ByRow:
        return self

    def run(self, inputs: Sequence[Tensor], sources: Sequence[Tensor]) -> list[Tensor]:
        """Inputs and results: (clips, rows of a clip, columns)."""
        clips = inputs[0].shape[0]
        if self._clip > 1 and clips <= FEW:
            return self._for(self._clip).run(inputs, sources)
        total = clips * self._clip
        rows = next((r for r in self._rows if r >= total), self._rows[-1])
        results = self._for(rows).run([_padded(t, total, rows) for t in inputs], sources)
        return [r.flatten(0, 1)[:total].clone().view(clips, self._clip, -1) for r in results]

    def _largest(self) -> int:
        """The place in `ROWS` of the most rows that the device takes: known before the first call."""
        for i in reversed(range(len(ROWS))):
            try:
                self._for(ROWS[i])
                return i
            except LoweringError as error:
                refused = error
        raise refused

    def _for(self, rows: int) -> Runs:
        found = self._prepared.get(rows)
        if found is None:
            found = self._prepared[rows] = self._prepare(rows)
        return found


def _padded(t: Tensor, total: int, rows: int) -> Tensor:
    """(clips, rows of a clip, columns) as (dispatches, rows, columns), zeros at the end."""
    count = -(-total // rows)
    flat = t.reshape(total, t.shape[-1])
    if total == count * rows:
        return flat.reshape(count, rows, -1)
    padded = flat.new_zeros(count * rows, t.shape[-1])
    padded[:total] = flat
    return padded.view(count, rows, -1)
