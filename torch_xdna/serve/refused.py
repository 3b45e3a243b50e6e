"""Why a request gets no transcript: a status and one sentence, as each interface words it."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """`status`: of HTTP; `message`: one sentence that holds nothing of the client's but checked values; `code`: a word
    for programs, as OpenAI's errors have; `retry_seconds`: when it may be worth asking again."""

    def __init__(self, status: int, message: str, code: str = "", retry_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.retry_seconds = status, message, code, retry_seconds

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_seconds is None else {"Retry-After": str(self.retry_seconds)}

    def as_openai(self) -> dict[str, Any]:
        """The body that OpenAI's clients make an exception of."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code or None}}

    def as_whisper_cpp(self) -> dict[str, Any]:
        return {"error": self.message}


def stopping() -> Refused:
    return Refused(503, "the server is stopping: ask again in a moment", "stopping", retry_seconds=5)
