"""What takes the time, per layer and op, and what bounds it: tables, JSON, pictures, traces.

    profile_model("base", clock_ghz=1.03)      a Whisper encoder by name, configuration or directory
    profile_regions([region], ...)             any regions
    profile_report(report, ...)                the regions of a compiled model's report

Times of the NPU are modelled, never measured; times of this machine (`host`) are measured and called so.
"""

from __future__ import annotations

from typing import Any

from torch_xdna.profile.model import OpProfile, Profile

__all__ = ["OpProfile", "Profile", "profile_model", "profile_regions", "profile_report"]


def __getattr__(name: str) -> Any:
    if name in ("profile_model", "profile_regions", "profile_report"):
        from torch_xdna.profile import build

        return getattr(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
