"""`python -m benchmarks.recovering`: what recovery costs: the Publisher and a recovering consumer beside plain ones.

On RabbitMQ and on the embedded broker, each run in a process of its own, the sides taking turns; rates and CPU are
medians of the rounds.  The publisher is compared with a plain channel in confirm mode that publishes mandatory, which
gives each message an id, too; a plain channel without that is shown beside them.  Exit status 1 if a recovering side
reaches less than WANTED of the plain one's messages a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from benchmarks.embedded import EMBEDDED, RABBITMQ, RunningBroker, running_brokers
from benchmarks.report import ROOT
from benchmarks.task import URL_VARIABLE

__all__ = ["main"]

#: The part of the plain side's messages a second that the recovering side must reach.
WANTED = 0.85
LIMIT = 120.0
COUNT = 60_000

#: What is done, and how: the first is what the others are compared with, a False says that it is only shown.
COMPARISONS: tuple[tuple[str, str, tuple[tuple[str, bool], ...]], ...] = (
    ("publish, 1,000 in flight", "publish", (("mandatory", True), ("publisher", True), ("plain", False))),
    ("consume, prefetch 200", "consume", (("plain", True), ("recovering", True), ("deduplicated", False))),
)


def run(broker: RunningBroker, role: str, how: str, count: int) -> tuple[float, float]:
    """Messages a second, and microseconds of the client's CPU for each."""
    command = [sys.executable, "-m", "benchmarks.recovering_tasks", role, how, f"--count={count}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, URL_VARIABLE: broker.url},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{role} {how} on {broker.name} failed: {done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return count / result["seconds"], result["cpu_seconds"] / count * 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovering", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--brokers", type=lambda text: text.split(","), default=[RABBITMQ, EMBEDDED])
    options = parser.parse_args(arguments)
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    with running_brokers(options.brokers) as brokers:
        for number in range(max(1, min(options.rounds, 25))):
            for broker in brokers:
                for _, role, sides in COMPARISONS:
                    turn = number % len(sides)
                    for how, _ in (*sides[turn:], *sides[:turn]):
                        if role == "consume":
                            run(broker, "publish", "mandatory", options.count)  # what is consumed
                        found[broker.name, role, how].append(run(broker, role, how, options.count))
    print("| broker | what | side | messages/s | x first | CPU us/message | x first |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    is_reached = True
    for broker in brokers:
        for title, role, sides in COMPARISONS:
            base: tuple[float, float] | None = None
            for how, counts in sides:
                rates, cpus = zip(*found[broker.name, role, how], strict=True)
                rate, cpu = median(rates), median(cpus)
                base = base or (rate, cpu)
                ratio = rate / base[0]
                is_reached = is_reached and (not counts or ratio >= WANTED)
                print(
                    f"| {broker.name} | {title} | {how} | {rate:,.0f} | {ratio:.2f} | {cpu:.2f} | {cpu / base[1]:.2f} |"
                )
    print(f"\nwanted: {WANTED:.0%} of the first side's messages/s; {'reached' if is_reached else 'NOT reached'}")
    return 0 if is_reached else 1


if __name__ == "__main__":
    sys.exit(main())
