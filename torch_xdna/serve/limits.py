"""How much of everything one server takes, in one place; the command line sets what a user may want otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is refused beyond it, with the status that a client sees.

    jobs: requests that are being received, wait or run (429 with Retry-After); batch_size: windows per pass of the
    model; windows_ahead: windows of all requests that are read before their turn (bounds memory: 1.9 MB each at 30 s);
    upload_bytes: of a whole body (413); audio_seconds: of a recording (413); idle_seconds: without a byte of an
    announced body, or of a request's head (408); upload_seconds: for the whole body (408); request_seconds: from then
    to the answer (504); grace_seconds: for what runs when the server is told to stop (503); fields, field_bytes: of a
    form besides the file (400); connections: open at a time (503); folder: where bodies are kept, None: the system's.
    """

    jobs: int = 64
    batch_size: int = 8
    windows_ahead: int = 32
    upload_bytes: int = 512 << 20
    audio_seconds: float = 4 * 3600.0
    idle_seconds: float = 30.0
    upload_seconds: float = 600.0
    request_seconds: float = 3600.0
    grace_seconds: float = 60.0
    fields: int = 64
    field_bytes: int = 64 << 10
    connections: int = 512
    folder: str | None = None
