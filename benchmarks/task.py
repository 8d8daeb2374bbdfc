"""What every measured program shares: its task, its stopwatch, its one line of output.

The rule for all of them, so that no client is timed to a different point:

* connecting, opening the channel, `basic.qos`, `confirm.select` come before the clock starts;
* the clock stops when a passive `queue.declare`, sent on the same channel behind everything else, was
  answered with the expected number of messages in the queue: all of them after publishing, none after
  consuming.  A channel is worked off in order, so by then the broker has every publish and every ack.
  (The declare is repeated until then: RabbitMQ's classic queue answers it ahead of messages that are still
  in its mailbox.)

CPU is what this process used between the two moments, user and system, from getrusage(2).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from dataclasses import dataclass

from benchmarks.plan import OPERATIONS, Operation

__all__ = ["URL_VARIABLE", "Stopwatch", "Task", "read_task"]

#: The environment variable that carries the broker's URL (it holds a password, so it is no argument).
URL_VARIABLE = "TXMSG_BENCH_URL"


@dataclass(frozen=True, slots=True)
class Task:
    """One run: `operation` on `count` messages of `size` bytes through `queue` of the broker at `url`."""

    url: str
    queue: str
    operation: Operation
    size: int
    count: int

    @property
    def body(self) -> bytes:
        """A body of the wanted size."""
        return b"x" * self.size

    @property
    def expected_messages(self) -> int:
        """How many messages are in the queue when the task is done."""
        return 0 if self.operation.consumes else self.count


def read_task(argv: list[str] | None = None) -> Task:
    """Read the task from the command line; the URL comes from the environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queue", required=True)
    parser.add_argument("--operation", required=True, choices=list(OPERATIONS))
    parser.add_argument("--size", required=True, type=int)
    parser.add_argument("--count", required=True, type=int)
    options = parser.parse_args(argv)
    return Task(
        url=os.environ[URL_VARIABLE],
        queue=options.queue,
        operation=OPERATIONS[options.operation],
        size=options.size,
        count=options.count,
    )


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Stopwatch:
    """Wall time and the CPU time of this process, from `start` to `stop`."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0
        self.seconds = self.cpu_seconds = 0.0

    def start(self) -> None:
        """Begin: everything is connected and declared."""
        self._cpu = _cpu_seconds()
        self._wall = time.perf_counter()

    def stop(self) -> None:
        """End: the closing queue.declare was answered."""
        self.seconds = time.perf_counter() - self._wall
        self.cpu_seconds = _cpu_seconds() - self._cpu

    def print_result(self, *, received_bytes: int = 0) -> None:
        """Print the line that the runner reads; `received_bytes` is the sum of the bodies delivered."""
        result = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "received_bytes": received_bytes}
        print(json.dumps(result), flush=True)
