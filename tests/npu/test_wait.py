"""Waiting for runs, on a made-up clock: how late it is, how often it looks, and what it learns."""

from __future__ import annotations

import pytest

from torch_xdna.devices.npu import wait


class Clock:
    """Time passes only in sleeps; each is 60 us longer than asked for, as Linux has it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + 60e-6

    def wait(self, seconds: float, pace: wait.Pace | None = None, timeout: float = 10.0) -> float | None:
        """Wait for a run that ends after `seconds`; how late that is, None after the timeout."""
        end, self.looks = self.now + seconds, 0

        def done() -> bool:
            self.looks += 1
            return self.now >= end

        waited = wait.until(done, timeout=timeout, pace=pace)
        return None if waited is None else self.now - end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(wait, "time", clock)
    return clock


@pytest.mark.parametrize("seconds", [0.03, 0.06, 0.2, 1.0])
def test_steady_runs_are_met_in_time_with_few_looks(clock: Clock, seconds: float) -> None:
    pace = wait.Pace()
    for call in range(10):
        late = clock.wait(seconds * (1 + 0.02 * (-1) ** call), pace)
        assert late < max(0.3e-3, 0.005 * seconds)
        assert call == 0 or clock.looks < 30


@pytest.mark.parametrize("seconds", [1e-3, 5e-3])
def test_short_runs_and_the_first_of_a_program(clock: Clock, seconds: float) -> None:
    assert clock.wait(seconds) < 0.12 * seconds + 60e-6


def test_a_faster_clock_is_noticed(clock: Clock) -> None:
    """From battery to mains: too late a few times, then in time."""
    pace = wait.Pace()
    for _ in range(5):
        clock.wait(0.060, pace)
    late = [clock.wait(0.025, pace) for _ in range(8)]
    assert late[0] > 0.02 and max(late[5:]) < 1.5e-3
    slower = [clock.wait(0.060, pace) for _ in range(3)]
    assert max(slower) < 0.5e-3


def test_a_run_that_had_ended_teaches_little(clock: Clock) -> None:
    pace = wait.Pace()
    clock.wait(0.060, pace)
    assert clock.wait(0.0, pace) == 0.0 and clock.looks == 1
    assert clock.wait(0.060, pace) < 0.3e-3


def test_timeout(clock: Clock) -> None:
    pace = wait.Pace()
    clock.wait(0.060, pace)
    before = clock.now
    assert clock.wait(99.0, pace, timeout=0.5) is None
    assert 0.5 <= clock.now - before < 0.51
    assert clock.wait(99.0, pace, timeout=0.01) is None
    assert clock.wait(0.060, pace) < 0.3e-3, "what hung taught nothing"
