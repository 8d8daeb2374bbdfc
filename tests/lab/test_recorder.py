"""What the lab makes of the events of a run."""

from __future__ import annotations

from typing import Any

from tests.lab.recorder import StateTimes, replay
from txmsg.testing.disruption import QueueChecker, Report


def _report(lines: list[list[Any]], *faults: tuple[float, float]) -> Report:
    checker = QueueChecker("F0")
    times, _ = replay(lines, checker)
    times.tell(checker, list(faults))
    return checker.report()


def test_a_run_without_a_fault() -> None:
    lines: list[list[Any]] = [
        ["state", 1.0, "publishing", "ready", ""],
        ["attempt", 2.0, "p0"],
        ["ended", 3.0, "p0-1", "confirmed"],
        ["handled", 3.0, "p0-1", "lab.0", False],
    ]
    report = _report(lines)
    report.check()
    assert (report.sent, report.confirmed, report.handled, report.detection.count) == (1, 1, 1, 0)


def test_what_must_not_be_is_seen() -> None:
    """R1, R4, R28: lost, out of order, twice, not ended, an error, a secret: each is counted."""
    lines: list[list[Any]] = [
        *(["attempt", 1.0, "p0"] for _ in range(4)),
        ["ended", 1.0, "p0-1", "confirmed"],
        ["ended", 1.0, "p0-2", "confirmed"],
        ["ended", 1.0, "p0-3", "confirmed"],
        ["handled", 1.0, "p0-2", "lab.0", False],
        ["handled", 1.0, "p0-1", "lab.0", False],
        ["handled", 1.0, "p0-1", "lab.0", True],
        ["handled", 1.0, "p0-9", "lab.0", False],
        ["error", 1.0, "Unhandled error in Deferred"],
        ["secret", 1.0, "somewhere"],
    ]
    report = _report(lines)
    found = (report.lost, report.order_violations, report.duplicates, report.unexpected, report.unfired)
    assert found == (1, 1, 1, 1, 1)
    assert (report.unhandled_errors, report.secrets) == (1, 1)
    assert not report.is_good


def test_a_client_that_was_killed() -> None:
    """F23: what it had in its hands has no outcome, and is no Deferred that did not fire."""
    report = _report([["attempt", 1.0, "p0"], ["killed", 2.0]])
    report.check()
    assert report.unconfirmed == 1


def test_times() -> None:
    """Detection from the fault on, recovery from its end on, or from the detection if that is later."""
    times = StateTimes()
    for at, state in (
        (1.0, "ready"),
        (12.0, "lost"),
        (13.0, "connecting"),
        (15.5, "ready"),
        (31.0, "lost"),
        (33.0, "ready"),
    ):
        times.add(at, "publishing", state, "")
    checker = QueueChecker("F0")
    times.tell(checker, [(10.0, 14.0), (30.0, 30.5)])
    report = checker.report()
    assert (report.detection.p50, report.detection.max) == (1.5, 2.0)
    assert (report.recovery.p50, report.recovery.max) == (1.75, 2.0)
    assert times.reconnects() == 2


def test_a_fault_that_nobody_notices() -> None:
    times = StateTimes()
    times.add(1.0, "publishing", "ready", "")
    checker = QueueChecker("F0")
    times.tell(checker, [(10.0, 14.0)])
    assert checker.report().detection.count == checker.report().recovery.count == 0
