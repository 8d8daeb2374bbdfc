"""`python -m benchmarks.embedded`: publish, deliver and ack through one queue of the embedded broker, and of RabbitMQ.

Broker, publisher and consumer are three processes on this machine; publisher and consumer are txmsg's own and the same
for both brokers, which take turns.  A message is counted when its ack has been taken.  The broker's CPU is what its
process used meanwhile, user and system, from /proc.  Exit status 1 if the embedded broker is slower than WANTED.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.report import ROOT
from benchmarks.task import URL_VARIABLE
from txmsg.testing.rabbitmq import RabbitMQNode

__all__ = ["EMBEDDED", "RABBITMQ", "Run", "RunningBroker", "fill", "measure", "running_brokers"]

EMBEDDED = "embedded"
RABBITMQ = "RabbitMQ"
#: As many as a queue of the embedded broker may hold, if the consumer takes none.
MESSAGES = 100_000
LIMIT = 120.0

#: Title, prefetch count, publishes in flight (0: no confirms), whether each ack is a frame of its own.
SCENARIOS = (
    ("prefetch 200", 200, 0, False),
    ("prefetch 1000", 1000, 0, False),
    ("prefetch 200, confirms", 200, 1000, False),
    ("prefetch 1000, confirms", 1000, 1000, False),
    ("prefetch 200, acks one by one", 200, 0, True),
)
#: Messages a second that the embedded broker must reach in each.
WANTED = 20_000


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave: messages a second, and microseconds of the broker's CPU for each."""

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker to measure: where it is, and its process."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """What the process has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _start(role: str, url: str = "", **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.embedded_tasks", role]
    command += [f"--{key.replace('_', '-')}={value}" for key, value in options.items() if value]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, URL_VARIABLE: url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with {process.wait(LIMIT)}")
    return line


@contextmanager
def running_brokers(names: Sequence[str], profile: str | None = None, memory: int = 0) -> Iterator[list[RunningBroker]]:
    """The brokers of these names, running; they are gone afterwards.

    `memory`: bytes that the embedded one may hold, in one queue and in all; 0 for its default.
    """
    embedded = node = None
    try:
        brokers = []
        if EMBEDDED in names:
            embedded = _start("serve", profile=profile, memory=memory)
            brokers.append(RunningBroker(EMBEDDED, _line(embedded), embedded.pid))
        if RABBITMQ in names:
            node = RabbitMQNode(schedulers=None)
            node.start()
            brokers.append(RunningBroker(RABBITMQ, node.url, int(node.eval("os:getpid()").strip().strip('"'))))
        yield brokers
    finally:
        if embedded is not None:
            assert embedded.stdin is not None
            embedded.stdin.close()
            embedded.wait(LIMIT)
        if node is not None:
            node.close()


def measure(
    broker: RunningBroker,
    *,
    prefetch: int,
    in_flight: int,
    single_acks: bool = False,
    count: int = MESSAGES,
    size: int = 100,
) -> Run:
    """One run with `count` messages of `size` octets."""
    consumer = _start("consume", broker.url, count=count, prefetch=prefetch, single_acks=int(single_acks))
    publisher = None
    try:
        _line(consumer)
        publisher = _start("publish", broker.url, count=count, size=size, in_flight=in_flight)
        _line(publisher)
        before = broker.cpu_seconds()
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
        seconds = json.loads(_line(consumer))["seconds"]
        used = broker.cpu_seconds() - before
        publisher.wait(LIMIT)
        consumer.wait(LIMIT)
    finally:
        for process in (consumer, publisher):
            if process is not None:
                process.kill()
                process.communicate()
    return Run(count / seconds, 1e6 * used / count)


def fill(broker: RunningBroker, count: int, size: int) -> None:
    """Put `count` messages of `size` octets into a queue of its own, confirmed."""
    publisher = _start("publish", broker.url, count=count, size=size, in_flight=1000, declare=1)
    try:
        _line(publisher)
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
        if publisher.wait(LIMIT):
            raise RuntimeError(f"the publisher ended with {publisher.returncode}")
    finally:
        publisher.kill()
        publisher.communicate()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[EMBEDDED, RABBITMQ])
    parser.add_argument("--scenario", type=int, choices=range(len(SCENARIOS)), help="one of the rows only")
    parser.add_argument("--profile", help="have the embedded broker write a profile of its process here")
    options = parser.parse_args(arguments)
    names = [options.only] if options.only else [EMBEDDED, RABBITMQ]
    scenarios = SCENARIOS if options.scenario is None else SCENARIOS[options.scenario : options.scenario + 1]
    runs: dict[tuple[str, str], list[Run]] = {}
    with running_brokers(names, options.profile) as brokers:
        for _ in range(options.rounds):
            for title, prefetch, in_flight, single_acks in scenarios:
                for broker in brokers:
                    run = measure(
                        broker,
                        prefetch=prefetch,
                        in_flight=in_flight,
                        single_acks=single_acks,
                        count=options.messages,
                        size=options.size,
                    )
                    runs.setdefault((title, broker.name), []).append(run)
                    print(f"{title}: {broker.name}: {run.rate:,.0f}/s, {run.cpu:.1f} us", file=sys.stderr, flush=True)
    rates = {key: median(run.rate for run in found) for key, found in runs.items()}
    costs = {key: median(run.cpu for run in found) for key, found in runs.items()}
    heads = [f"{name} msg/s | {name} CPU us" for name in names] + ["rate / RabbitMQ's"] * (len(names) == 2)
    print(f"| {options.size} B, transient, one queue | {' | '.join(heads)} |")
    print("| --- |" + " ---: |" * (2 * len(names) + (len(names) == 2)))
    for title, *_ in scenarios:
        cells = [f"{rates[title, name]:,.0f} | {costs[title, name]:.1f}" for name in names]
        if len(names) == 2:
            cells.append(f"{rates[title, EMBEDDED] / rates[title, RABBITMQ]:.2f}")
        print(f"| {title} | " + " | ".join(cells) + " |")
    slowest = min((rate for (_, name), rate in rates.items() if name == EMBEDDED), default=float(WANTED))
    print(f"\nslowest of the embedded broker: {slowest:,.0f}/s, wanted {WANTED:,}", file=sys.stderr)
    return 0 if slowest >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
