"""A ladder of tests: smallest first, each with a time limit, each result recorded before the next begins.

A rung that fails names its likeliest causes and what to try next. Rungs that need it are skipped with that
reason, all others still run. A call that doesn't come back can't be ended from within its process: it is left
behind on its thread, and the rungs after it are skipped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Facts = dict[str, Any]
PASSED, FAILED, SKIPPED, IMPOSSIBLE = "passed", "failed", "skipped", "not possible"


@dataclass(frozen=True)
class Rung:
    """`action` gives facts, with `passed` False for a wrong result or `impossible` (why) where this machine or
    overlay can't show it, or raises. `limit_s`: seconds until it counts as hung. `needs`: names of rungs."""

    name: str
    action: Callable[[], Facts]
    limit_s: float
    needs: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    next: tuple[str, ...] = ()


def climb(
    rungs: Sequence[Rung], record: Callable[[list[Facts]], None], progress: Callable[[str], None]
) -> list[Facts]:
    """Per rung its name, needs, status, limit, seconds, and facts or error, causes and next steps. `record` gets all
    results so far after every rung."""
    results: list[Facts] = []
    status: dict[str, str] = {}
    hung: str | None = None
    for rung in rungs:
        progress(rung.name)
        missing = [name for name in rung.needs if status.get(name) in (FAILED, SKIPPED)]
        result: Facts = {"name": rung.name, "limit_s": rung.limit_s, "needs": list(rung.needs)}
        if hung is not None:
            result |= {"status": SKIPPED, "reason": f"the call of rung '{hung}' has not come back"}
        elif missing:
            result |= {"status": SKIPPED, "reason": f"needs '{missing[0]}', which {status[missing[0]]}"}
        else:
            found, came_back = _timed(rung)
            result |= found
            hung = None if came_back else rung.name
        if result["status"] == FAILED:
            result |= {"causes": list(rung.causes), "next": list(rung.next)}
        if result["status"] == SKIPPED and result["reason"].endswith(f"which {SKIPPED}"):
            result["reason"] = f"needs '{missing[0]}', which was skipped"
        status[rung.name] = result["status"]
        results.append(result)
        record(results)
    return results


def _timed(rung: Rung) -> tuple[Facts, bool]:
    """The rung's result, and whether its call came back."""
    answer: list[Facts] = []

    def call() -> None:
        try:
            facts = rung.action()
            if "impossible" in facts:
                answer.append({"status": IMPOSSIBLE, "reason": facts["impossible"]})
            else:
                answer.append({"status": PASSED if facts.get("passed", True) else FAILED, "facts": facts})
        except Exception as error:  # whatever it is, it is this rung's result, and the others follow
            answer.append({"status": FAILED, "error": str(error) or type(error).__name__})

    started = time.monotonic()
    thread = threading.Thread(target=call, name=f"selftest {rung.name}", daemon=True)
    thread.start()
    thread.join(rung.limit_s)
    seconds = {"seconds": time.monotonic() - started}
    if answer:
        return answer[0] | seconds, True
    return {"status": FAILED, "error": f"no end within {rung.limit_s:g} s"} | seconds, False
