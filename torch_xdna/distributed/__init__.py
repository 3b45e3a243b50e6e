"""Many recordings on many machines, by Ray Data (the extra `ray`).

sources   what there is to transcribe -> recordings, each known by path, size and time of change
reading   CPU tasks without torch: recordings -> units of windows
claims    how many workers, and what each takes of a machine, so that reading never starves
workers   actors that hold a model each: units -> pieces of transcripts
results   pieces -> a row per recording in Parquet, what is done already
job       the four, one after another
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_xdna.distributed.job import Summary, transcribe

__all__ = ["Summary", "transcribe"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'torch_xdna.distributed' has no attribute '{name}'")
    from torch_xdna.distributed import job

    return getattr(job, name)
