"""The real pyxrt for an interpreter that has torch: its objects live in the sandbox (`lender`), here are
handles.

pyxrt is built for the distribution's Python, for which no test installs torch. So calls, results and errors
cross a socket, and both processes map the buffers' memory. pyxrt, XRT and AMD's user-space driver are the real
ones, arguments are checked by them; what differs from a single process is who holds the interpreter's lock
while XRT works.
"""

from __future__ import annotations

import builtins
import mmap
import threading
import types
from collections import deque
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from sandbox.host import Sandbox

STATES = {"ERROR": 5, "ABORT": 6, "TIMEOUT": 8}


class BorrowedXrt(types.ModuleType):
    """The module; also the way to the stand-in driver's counters and knobs, as `ScriptedXrt` has them."""

    def __init__(self, sandbox: Sandbox, **knobs: int) -> None:
        super().__init__("pyxrt")
        address = str(sandbox.folder / "socket")
        self.sandbox = sandbox
        with Listener(address) as listener:
            self._process = sandbox.start("lender:serve", knobs=knobs, address=address)
            self._link = Link(listener.accept())
        self._inside = Far(self._link, 1)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._link.ask("get", 0, name)

    @property
    def runs(self) -> int:
        return self._inside.get("RUNS")

    @property
    def contexts(self) -> int:
        return self._inside.get("CONTEXTS_MADE")

    def knob(self, name: str, value: int) -> None:
        self._inside.set_knob(name, value)

    def fail(self, state: str, times: int) -> None:
        """The next `times` runs end in `state`, or can't be submitted (SUBMIT)."""
        if state == "SUBMIT":
            self.knob("SUBMIT_FAILS", times)
            return
        self.knob("FAIL_STATE", STATES[state])
        self.knob("FAIL", times)

    def end(self) -> None:
        """Hang up. The lender must have lived until now."""
        self._link.connection.close()
        result = self.sandbox.finish(self._process)
        assert result.status == 0, f"the process with pyxrt ended with {result.status}:\n{result.stderr}"


class Link:
    """The connection; one question at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.dropped = connection, deque[int]()
        self._lock = threading.Lock()

    def ask(self, verb: str, number: int, *rest: Any) -> Any:
        with self._lock:
            dropped = [self.dropped.popleft() for _ in range(len(self.dropped))]
            self.connection.send((dropped, verb, number, rest))
            kind, answer = self.connection.recv()
        if kind == "object":
            return Far(self, answer)
        if kind == "memory":
            file, offset, size = answer
            with Path(file).open("r+b") as memory:
                return mmap.mmap(memory.fileno(), size, offset=offset)
        if kind == "raised":
            name, text = answer
            raise getattr(builtins, name)(text)
        return answer


class Far:
    """An object of the lender; dropped there with the next question after it is dropped here."""

    def __init__(self, link: Link, number: int) -> None:
        self._link, self._number = link, number

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask("get", self._number, name)

    def __call__(self, *args: Any) -> Any:
        told = [(True, a._number) if isinstance(a, Far) else (False, a) for a in args]
        return self._link.ask("call", self._number, *told)

    def __int__(self) -> int:
        return self._link.ask("int", self._number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Far) and self._link.ask("equal", self._number, other._number)

    def __hash__(self) -> int:
        return hash(self._number)

    def __del__(self) -> None:
        if self._number > 1:
            self._link.dropped.append(self._number)
