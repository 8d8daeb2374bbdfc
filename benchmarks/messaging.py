"""`python -m benchmarks.messaging`: what the messaging layer costs, beside Kombu and beside a plain channel.

A dictionary of 100 bytes as JSON is published with a confirm, and consumed with an ack: by txmsg.messaging's Producer
and Consumer, by Kombu's over pyamqp, and by a channel of txmsg.amqp; there once with json.dumps and json.loads around
it, and once with octets as they are, which nobody encodes or decodes.  On RabbitMQ and on the embedded broker, each run
in a process of its own, the sides taking turns; the figures are medians of the rounds.

Counted is the client's CPU for publishing a message and consuming it.  Exit status 1 if the layer takes more than a
quarter of Kombu's, or more than twice the plain channel's, on RabbitMQ.
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

LIMIT = 180.0
COUNT = 30_000
#: Kombu waits for each confirm by itself, so that it takes far longer.
KOMBU_COUNT = 6_000
ROLES = ("publish", "consume")
SIDES = ("messaging", "kombu", "json", "octets")
TITLES = {
    "messaging": "txmsg.messaging",
    "kombu": "Kombu, pyamqp",
    "json": "txmsg channel, with json",
    "octets": "txmsg channel, octets only",
}
#: The layer's CPU must not be more than so many times that of these.
GOALS = {"kombu": 0.25, "json": 2.0}


def run(broker: RunningBroker, role: str, how: str, count: int) -> tuple[float, float]:
    """Messages a second, and microseconds of the client's CPU for each."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.messaging_tasks", role, how, f"--count={count}"],
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


def report(broker: str, found: dict[tuple[str, str, str], list[tuple[float, float]]], sides: Sequence[str]) -> bool:
    """Print the rows of a broker, and the ratios; whether the goals were reached."""
    cpu: dict[str, float] = {}
    for how in sides:
        publish, consume = (
            [median(column) for column in zip(*found[broker, role, how], strict=True)] for role in ROLES
        )
        cpu[how] = publish[1] + consume[1]
        print(
            f"| {broker} | {TITLES[how]} | {publish[0]:,.0f} | {publish[1]:.1f} | {consume[0]:,.0f} | {consume[1]:.1f}"
            f" | {cpu[how]:.1f} | {cpu['messaging'] / cpu[how]:.2f} |"
        )
    return all(cpu["messaging"] <= most * cpu[how] for how, most in GOALS.items() if how in cpu)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.messaging", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--brokers", type=lambda text: text.split(","), default=[RABBITMQ, EMBEDDED])
    parser.add_argument("--sides", type=lambda text: text.split(","), default=list(SIDES))
    options = parser.parse_args(arguments)
    sides = ["messaging", *(side for side in SIDES[1:] if side in options.sides)]
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    is_reached = True
    with running_brokers(options.brokers) as brokers:
        for number in range(max(1, min(options.rounds, 25))):
            for broker in brokers:
                turn = number % len(sides)
                for how in (*sides[turn:], *sides[:turn]):
                    count = min(options.count, KOMBU_COUNT) if how == "kombu" else options.count
                    for role in ROLES:  # what is consumed is what was published before
                        found[broker.name, role, how].append(run(broker, role, how, count))
    print("| broker | side | published/s | CPU us | consumed/s | CPU us | CPU us both | txmsg.messaging takes of it |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for broker in brokers:
        reached = report(broker.name, found, sides)
        is_reached = is_reached and (reached or broker.name != RABBITMQ)
    goals = ", ".join(f"at most {most:g} of {TITLES[how]}" for how, most in GOALS.items())
    print(f"\nwanted on {RABBITMQ}: {goals}; {'reached' if is_reached else 'NOT reached'}")
    return 0 if is_reached else 1


if __name__ == "__main__":
    sys.exit(main())
