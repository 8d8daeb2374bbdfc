"""What the workload says it does: to a checker in the same process, or as lines to the process that watches it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from txmsg.testing.disruption import QueueChecker
from txmsg.testing.disruption.checker import Ending

__all__ = ["CheckerRecorder", "LineRecorder", "Recorder", "StateTimes", "replay"]


class Recorder(Protocol):
    """Where the workload tells what happens; the ids are "publisher-number"."""

    def attempted(self, publisher: str) -> str:
        """A message is about to be published; returns its id."""
        ...

    def ended(self, message_id: str, ending: Ending) -> None:
        """Its publish has ended."""
        ...

    def handled(self, message_id: str, queue: str, redelivered: bool) -> None:
        """A handler has it."""
        ...

    def state(self, connection: str, state: str, why: str) -> None:
        """A connection is "ready", "lost" ... now."""
        ...


class StateTimes:
    """When the connections were lost and ready again, and what that says about detection and recovery.

    steps: list of (seconds, connection, state, why).
    """

    def __init__(self) -> None:
        self.steps: list[tuple[float, str, str, str]] = []

    def add(self, at: float, connection: str, state: str, why: str) -> None:
        """One step."""
        self.steps.append((at, connection, state, why))

    def count(self, state: str) -> int:
        """How often any connection came into that state."""
        return sum(step[2] == state for step in self.steps)

    def reconnects(self) -> int:
        """How often a connection was ready again."""
        return self.count("ready") - len({step[1] for step in self.steps if step[2] == "ready"})

    def tell(self, checker: QueueChecker, faults: list[tuple[float, float]]) -> None:
        """Give the checker what the steps say, for faults at (began, healed)."""
        for number, (began, healed) in enumerate(faults):
            end = faults[number + 1][0] if number + 1 < len(faults) else float("inf")
            for connection in {step[1] for step in self.steps}:
                mine = [step for step in self.steps if step[1] == connection and began <= step[0] < end]
                lost = next((at for at, _, state, _ in mine if state == "lost"), None)
                if lost is None:
                    continue
                before = [state for at, name, state, _ in self.steps if name == connection and at < began]
                if before and before[-1] in ("ready", "blocked"):
                    checker.detected(lost - began)
                ready = [at for at, _, state, _ in mine if state == "ready" and at >= max(lost, healed)]
                early = [at for at, _, state, _ in mine if state == "ready" and at >= lost]
                if ready or early:
                    checker.recovered(max(0.0, (ready or early)[0] - max(lost, healed)) if ready else 0.0)


class CheckerRecorder:
    """Tells a checker in the same process.

    checker: QueueChecker.   clock -- whose seconds count.   times: StateTimes.
    """

    def __init__(self, checker: QueueChecker, seconds: Callable[[], float]) -> None:
        self.checker = checker
        self.times = StateTimes()
        self._seconds = seconds

    def attempted(self, publisher: str) -> str:
        return self.checker.attempt(publisher)

    def ended(self, message_id: str, ending: Ending) -> None:
        self.checker.ended(message_id, ending)

    def handled(self, message_id: str, queue: str, redelivered: bool) -> None:
        self.checker.handled(message_id, consumer=f"consumer of {queue}", queue=queue, redelivered=redelivered)

    def state(self, connection: str, state: str, why: str) -> None:
        self.times.add(self._seconds(), connection, state, why)


class LineRecorder:
    """Writes a JSON line for each event: [kind, monotonic seconds, ...]; the clock is that of all processes here.

    A line is written whole before what it tells of goes on, so that nothing is forgotten when this process is killed.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._numbers: dict[str, int] = {}

    def write(self, kind: str, *values: Any) -> None:
        """One line."""
        line = json.dumps([kind, round(time.monotonic(), 6), *values], separators=(",", ":")) + "\n"
        os.write(self._descriptor, line.encode())

    def attempted(self, publisher: str) -> str:
        number = self._numbers[publisher] = self._numbers.get(publisher, 0) + 1
        self.write("attempt", publisher)
        return f"{publisher}-{number}"

    def ended(self, message_id: str, ending: Ending) -> None:
        self.write("ended", message_id, ending)

    def handled(self, message_id: str, queue: str, redelivered: bool) -> None:
        self.write("handled", message_id, queue, redelivered)

    def state(self, connection: str, state: str, why: str) -> None:
        self.write("state", connection, state, why)


def replay(lines: list[list[Any]], checker: QueueChecker) -> tuple[StateTimes, list[float]]:
    """Tell a checker what lines say; returns the states and the moments of the confirms.

    A publish that was under way when its process was killed is unconfirmed.
    """
    times = StateTimes()
    confirms: list[float] = []
    pending: dict[str, None] = {}
    is_killed = False
    for kind, at, *values in lines:
        if kind == "attempt":
            pending[checker.attempt(values[0])] = None
        elif kind == "ended":
            message_id, ending = values
            pending.pop(message_id, None)
            checker.ended(message_id, ending)
            if ending == "confirmed":
                confirms.append(at)
        elif kind == "handled":
            message_id, queue, redelivered = values
            checker.handled(message_id, consumer=f"consumer of {queue}", queue=queue, redelivered=redelivered)
        elif kind == "state":
            times.add(at, *values)
        elif kind == "error":
            checker.unhandled_error(values[0])
        elif kind == "secret":
            checker.secret_seen(values[0])
        elif kind == "unfired":
            checker.unfired(values[0])
        elif kind == "killed":
            is_killed = True
    if is_killed:
        for message_id in pending:
            checker.ended(message_id, "unconfirmed")
    return times, confirms
