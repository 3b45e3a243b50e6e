"""What happened when, for a timeline: opens in chrome://tracing or Perfetto."""

from __future__ import annotations

import json
from pathlib import Path


class Trace:
    """Spans per track (a core, a stream, a channel), in core cycles of one run."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, float, float]] = []

    def add(self, track: str, name: str, start: float, end: float) -> None:
        self.spans.append((track, name, start, end))

    def save(self, path: str | Path, clock_ghz: float) -> None:
        """Write Chrome's JSON; its times are microseconds, modelled at `clock_ghz`."""
        tracks = {track: number for number, track in enumerate(dict.fromkeys(s[0] for s in self.spans))}
        events: list[dict[str, object]] = [
            {"ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": {"name": track}}
            for track, tid in tracks.items()
        ]
        scale = 1e-3 / clock_ghz
        events += [
            {"ph": "X", "pid": 0, "tid": tracks[t], "name": name, "ts": a * scale, "dur": (b - a) * scale}
            for t, name, a, b in self.spans
        ]
        other = {"clock": f"modelled at {clock_ghz} GHz"}
        Path(path).write_text(json.dumps({"traceEvents": events, "otherData": other}))
