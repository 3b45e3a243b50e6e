"""The tests that borrow pyxrt, once more with torch and the real pyxrt in one process, as on an owner's machine.

pyxrt is built for Debian's Python 3.13, and torch for it is gigabytes, so this is no part of `make test`. Once:

    pip install --target FOLDER --python-version 3.13 --only-binary=:all: torch==2.13.0 transformers click rich \\
        av soundfile soxr matplotlib pytest jiwer
    python tests/npu/one_process.py FOLDER [words for pytest's -k]

Every test gets a process and a made-up machine of its own, since some end with a run that hangs for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

HERE = Path(__file__).parent
TESTS = ("test_npu_device.py", "test_npu_fallback.py", "test_selftest.py", "one_process_only.py")
INSIDE = "NPU_STANDIN_LIBRARY" in os.environ  # this process sees the made-up machine itself


class OwnXrt:
    """Knobs and counters as `BorrowedXrt` has them, for a process that loads pyxrt itself."""

    def __init__(self, **knobs: int) -> None:
        import pyxrt
        import stack
        from borrowed_xrt import STATES
        from sandbox import inside

        stack.simulate(4)
        self.module, self._states = pyxrt, STATES
        self.knob, self._get = inside.set_knob, inside.get
        self.sandbox = types.SimpleNamespace(machine=Path(os.environ["NPU_STANDIN_ROOT"]))
        for name, value in knobs.items():
            self.knob(name, value)

    @property
    def runs(self) -> int:
        return self._get("RUNS")

    @property
    def contexts(self) -> int:
        return self._get("CONTEXTS_MADE")

    def fail(self, state: str, times: int) -> None:
        if state == "SUBMIT":
            self.knob("SUBMIT_FAILS", times)
            return
        self.knob("FAIL_STATE", self._states[state])
        self.knob("FAIL", times)


def main(folder: Path, words: str) -> int:
    from sandbox.host import REPOSITORY, Sandbox

    def pytest(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = sandbox.environment()
        env["PYTHONPATH"] = os.pathsep.join([str(folder), env["PYTHONPATH"]])
        command = [
            *sandbox.loader(),
            str(sandbox.root / "usr/bin/python3.13"),
            str(HERE / "one_process.py"),
            "inside",
        ]
        return subprocess.run(
            [*command, *arguments],
            env=env,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def machine() -> Sandbox:
        return Sandbox(Path(tempfile.mkdtemp()))

    files = [f"tests/npu/{name}" for name in TESTS]
    listed = pytest(machine(), "--collect-only", "-q", "-k", words, *files)
    tests = [line for line in listed.stdout.splitlines() if "::" in line]
    if not tests:
        print(listed.stdout + listed.stderr, file=sys.stderr)
        return 1
    failed = 0
    for test in tests:
        done = pytest(machine(), "-q", "-s", test)
        passed = done.returncode == 0
        failed += not passed
        print("passed" if passed else "FAILED", test, flush=True)
        print(*(f"  {line}\n" for line in done.stdout.splitlines() if " per call" in line), sep="", end="")
        if not passed:
            print(done.stdout[-3000:] + done.stderr[-1500:], flush=True)
    print(f"{len(tests) - failed} of {len(tests)} passed")
    return int(failed > 0)


def inside(arguments: list[str]) -> None:
    """Pytest, and an end without destructors: dropping a run that hangs for ever would abort it."""
    import pytest

    status = pytest.main([*arguments, "-p", "no:cacheprovider", "-p", "no:benchmark"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    if sys.argv[1:2] == ["inside"]:
        inside(sys.argv[2:])
    elif len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1]).resolve(), " ".join(sys.argv[2:]) or "not scripted"))
    else:
        sys.exit(__doc__)
