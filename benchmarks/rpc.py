"""`python -m benchmarks.rpc`: calls to another process, beside pika, aio-pika, Kombu and rabbitmq-c.

A client asks a server to add two numbers; the two are processes of their own, and RabbitMQ is on the same machine.
Measured are single calls, one after the other, and calls with 100 of them in flight.  The sides take turns, each with a
new server and a new client; the figures are medians of the rounds.

Exit status 1 if txmsg makes fewer than 4,000 calls a second or fewer than five times those of aio-pika, or if half of
its single calls take longer than with the best of the other Python libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from benchmarks.embedded import EMBEDDED, RABBITMQ, RunningBroker, running_brokers
from benchmarks.rabbitmqc import Unavailable, build, credentials
from benchmarks.report import ROOT
from benchmarks.rpc_tasks import QUEUE
from benchmarks.task import URL_VARIABLE

__all__ = ["main"]

LIMIT = 120.0
SIDES = ("txmsg", "pika", "aio-pika", "kombu", "rabbitmq-c")
#: Those that txmsg's single calls are compared to.
PEERS = ("pika", "aio-pika", "kombu")
#: Calls a second, and how many times aio-pika's.
RATE, TIMES = 4000.0, 5.0
#: Slower sides make fewer calls together.
MANY = {"txmsg": 20_000, "rabbitmq-c": 20_000, "aio-pika": 2_000}


class Figures(NamedTuple):
    """Of one round: milliseconds of single calls, calls a second, and the client's CPU in us for one of these."""

    p50: float
    p99: float
    rate: float
    cpu: float


def command(side: str, role: str, broker: RunningBroker, program: Path | None, *counts: int) -> list[str]:
    """The command line of one process."""
    if side != "rabbitmq-c":
        names = ("--one", "--many", "--in-flight")
        options = [f"{name}={count}" for name, count in zip(names, counts, strict=False)]
        return [sys.executable, "-m", "benchmarks.rpc_tasks", side, role, *options]
    parts = urlsplit(broker.url)
    where = [parts.hostname or "localhost", str(parts.port), unquote(parts.path[1:]) or "/"]
    return [str(program), *where, role, f"{QUEUE}.c", *(str(count) for count in counts)]


def run(side: str, broker: RunningBroker, program: Path | None, one: int, many: int, in_flight: int) -> Figures:
    """One round of a side."""
    environment: Mapping[str, str] = {**os.environ, URL_VARIABLE: broker.url, **credentials(broker.url)}
    settings: dict[str, Any] = {"cwd": ROOT, "env": environment, "text": True}
    server = subprocess.Popen(
        command(side, "server", broker, program),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        **settings,
    )
    try:
        assert server.stdout is not None
        if server.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the server of {side} did not start")
        done = subprocess.run(
            command(side, "client", broker, program, one, many, in_flight),
            capture_output=True,
            timeout=LIMIT,
            check=False,
            **settings,
        )
    finally:
        server.kill()
        server.wait(10)
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                pipe.close()
    if done.returncode:
        raise RuntimeError(f"the client of {side} failed: {done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    times = [1000 * seconds for seconds in result["one"]]
    return Figures(median(times), quantiles(times, n=100)[98], many / result["many"], 1e6 * result["cpu"] / many)


def judge(figures: Mapping[str, Figures]) -> bool:
    """Print what was wanted and what was reached."""
    ours = figures["txmsg"]
    wanted = [(f"{RATE:,.0f} calls a second", f"{ours.rate:,.0f}", ours.rate >= RATE)]
    if "aio-pika" in figures:
        times = ours.rate / figures["aio-pika"].rate
        wanted.append((f"{TIMES:g} times aio-pika's", f"{times:.1f}", times >= TIMES))
    best = min((figures[side].p50 for side in PEERS if side in figures), default=None)
    if best is not None:
        wanted.append((f"a single call in at most {best:.3f} ms (p50)", f"{ours.p50:.3f}", ours.p50 <= best))
    for what, found, is_reached in wanted:
        print(f"wanted: {what}; found {found}: {'reached' if is_reached else 'NOT reached'}")
    return all(is_reached for _, _, is_reached in wanted)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rpc", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", type=int, default=1000)
    parser.add_argument("--many", type=int, default=0, help="calls together; 0: as suits each side")
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--broker", choices=[RABBITMQ, EMBEDDED], default=RABBITMQ)
    parser.add_argument("--sides", type=lambda text: text.split(","), default=list(SIDES))
    options = parser.parse_args(arguments)
    sides = ["txmsg", *(side for side in SIDES[1:] if side in options.sides)]
    found: dict[str, list[Figures]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, running_brokers([options.broker]) as (broker,):
        program = None
        if "rabbitmq-c" in sides:
            try:
                program = build(Path(folder), Path(__file__).with_name("rabbitmqc_rpc.c"))
            except Unavailable as error:
                print(f"without rabbitmq-c: {error}")
                sides.remove("rabbitmq-c")
        for number in range(max(1, min(options.rounds, 25))):
            turn = number % len(sides)
            for side in (*sides[turn:], *sides[:turn]):
                many = options.many or MANY.get(side, 5_000)
                found[side].append(run(side, broker, program, options.one, many, options.in_flight))
    figures = {side: Figures(*(median(column) for column in zip(*found[side], strict=True))) for side in sides}
    print(f"on {options.broker}, {options.in_flight} in flight, medians of {options.rounds} rounds")
    print("| side | one: p50 ms | one: p99 ms | many: calls/s | client's CPU us |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for side, row in figures.items():
        print(f"| {side} | {row.p50:.3f} | {row.p99:.3f} | {row.rate:,.0f} | {row.cpu:.1f} |")
    print()
    return 0 if judge(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
