"""`python -m benchmarks.compat`: what the drop-in for pika's adapter costs, beside the native channel and pika's own.

One program, written for pika's adapter, three times: on pika's adapter, on `txmsg.compat.pika` (the import changed),
and rewritten line by line for txmsg's own channel.  CPU of the client per message of 100 bytes, the median of the
rounds; the goal is at most 1.5 times the native channel's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

from benchmarks.broker import broker_url
from benchmarks.plan import OPERATIONS
from benchmarks.queue import MeasuredQueue
from benchmarks.report import ROOT
from benchmarks.task import URL_VARIABLE

__all__ = ["GOAL", "main"]

#: Program -> its module.
PROGRAMS = {
    "native channel": "benchmarks.clients.txmsg_loop",
    "drop-in": "benchmarks.clients.pika_dropin",
    "pika's adapter": "benchmarks.clients.pika_twisted",
}
#: How much more than the native channel the drop-in may cost.
GOAL = 1.5
QUEUE = "txmsg.benchmark.compat"
SIZE = 100


def measure(url: str, module: str, operation: str, count: int) -> float:
    """CPU in microseconds per message."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", module, "--queue", QUEUE, "--operation", operation),
            *("--size", str(SIZE), "--count", str(count)),
        ],
        cwd=ROOT,
        env={**os.environ, URL_VARIABLE: url},
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    seconds: float = json.loads(done.stdout.splitlines()[-1])["cpu_seconds"]
    return seconds * 1e6 / count


def main() -> int:
    """Measure and print; 1 if the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=30_000)
    options = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    with broker_url() as url:
        queue = MeasuredQueue(url, QUEUE)
        for _ in range(options.rounds):
            for operation, settings in OPERATIONS.items():
                for program, module in PROGRAMS.items():
                    queue.purge()
                    if settings.consumes:
                        queue.fill(options.count, SIZE)
                    cost = measure(url, module, operation, options.count)
                    found.setdefault((operation, program), []).append(cost)
        queue.close()
    is_met = True
    print(f"| operation | {' | '.join(PROGRAMS)} | drop-in / native |")
    print("| --- " * (len(PROGRAMS) + 2) + "|")
    for operation in OPERATIONS:
        costs = {program: statistics.median(found[operation, program]) for program in PROGRAMS}
        ratio = costs["drop-in"] / costs["native channel"]
        is_met = is_met and ratio <= GOAL
        print(f"| {operation} | {' | '.join(f'{cost:.1f} us' for cost in costs.values())} | {ratio:.2f} |")
    print(f"\nThe goal, {GOAL:g} times at most, is {'met' if is_met else 'missed'}.")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
