"""`python -m benchmarks.durable`: persistent messages in a durable queue, confirmed; embedded broker and RabbitMQ.

Broker, publisher and consumer are processes of their own on this machine, the brokers take turns, and both have their
data in the same folder, which must be on a disk.  A publish is counted when its confirm has come.  The first table is
what the disk itself takes: one sync of a log, and SQLite's commit of as many messages.  Exit status 1 if the embedded
broker is slower than WANTED with 1,000 in flight.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.report import ROOT
from benchmarks.task import URL_VARIABLE
from txmsg.broker.message import Message
from txmsg.broker.store.batch import Batch
from txmsg.broker.store.database import Database
from txmsg.broker.store.directory import DataDirectory
from txmsg.testing.rabbitmq import RabbitMQNode
from txmsg.wire.properties import BasicProperties

__all__ = ["main"]

EMBEDDED, RABBITMQ = "embedded", "RabbitMQ"
LIMIT = 300.0
SIZE = 100
#: Messages a second, persistent and confirmed, 1,000 in flight: the target.
WANTED = 4_000
#: Where nothing survives the machine, so that a sync costs nothing.
IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Scenario:
    """`count` messages, at most `in_flight` of them unconfirmed; consumed and acked meanwhile, or not."""

    title: str
    count: int
    in_flight: int
    is_consumed: bool = False
    size: int = SIZE


SCENARIOS = (
    Scenario("one at a time", 1_000, 1),
    Scenario("100 in flight", 10_000, 100),
    Scenario("1,000 in flight", 30_000, 1_000),
    Scenario("1,000 in flight, 10,000 B", 3_000, 1_000, size=10_000),
    Scenario("1,000 in flight, consumed and acked", 30_000, 1_000, is_consumed=True),
)
#: What WANTED is for.
TARGET = SCENARIOS[2]


def start(role: str, url: str = "", **options: object) -> subprocess.Popen[str]:
    """A process of benchmarks/durable_tasks.py."""
    command = [sys.executable, "-m", "benchmarks.durable_tasks", role]
    command += [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, URL_VARIABLE: url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read(process: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with {process.wait(LIMIT)}")
    return line


def end(process: subprocess.Popen[str]) -> None:
    """End its standard input, and wait for it."""
    process.communicate(timeout=LIMIT)


@contextmanager
def running(names: Sequence[str]) -> Iterator[dict[str, tuple[str, int]]]:
    """The brokers: name -> (URL, process id); they and their data are gone afterwards."""
    with ExitStack() as stack:
        found = {}
        if EMBEDDED in names:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="txmsg-bench-"))
            process = start("serve", data_dir=f"{folder}/data")
            stack.callback(end, process)
            found[EMBEDDED] = (read(process), process.pid)
        if RABBITMQ in names:
            node = stack.enter_context(RabbitMQNode(schedulers=None))
            found[RABBITMQ] = (node.url, int(node.eval("os:getpid()").strip('"')))
        yield found


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(url: str, pid: int, scenario: Scenario) -> tuple[float, float]:
    """Messages a second, and microseconds of the broker's CPU for each."""
    processes = []
    try:
        publisher = start("publish", url, count=scenario.count, in_flight=scenario.in_flight, size=scenario.size)
        processes.append(publisher)
        read(publisher)
        if scenario.is_consumed:
            processes.append(start("consume", url, count=scenario.count))
            read(processes[-1])
        before = cpu_seconds(pid)
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
        seconds = max(json.loads(read(process))["seconds"] for process in processes)
        used = cpu_seconds(pid) - before
        for process in processes:
            end(process)
    finally:
        for process in processes:
            process.kill()
    return scenario.count / seconds, 1e6 * used / scenario.count


def filesystem_of(folder: str) -> str:
    """The type of the file system that `folder` is on; empty if it cannot be told."""
    path, found, longest = os.path.realpath(folder), "", -1
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    for line in mounts:
        _, at, kind, *_ = line.split()
        at = at.replace("\\040", " ")
        if len(at) >= longest and (path == at or path.startswith(at.rstrip("/") + "/")):
            found, longest = kind, len(at)
    return found


def disk_costs() -> list[str]:
    """What a commit costs without a broker: a plain log with one sync, and SQLite."""
    folder = Path(tempfile.mkdtemp(prefix="txmsg-bench-"))
    database = Database(DataDirectory(folder / "data"))
    database.open()
    database.mark_running([])
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    properties = BasicProperties(delivery_mode=2)
    body = b"x" * SIZE
    lines = ["| messages in a commit | log, us | SQLite, us | SQLite, us a message |", "| ---: | ---: | ---: | ---: |"]
    row = 0
    try:
        for group in (1, 10, 100, 1000):
            plain, sqlite = [], []
            for _ in range(40):
                begun = time.perf_counter()
                os.write(log, b"x" * ((SIZE + 40) * group))
                os.fdatasync(log)
                plain.append(time.perf_counter() - begun)
                batch = Batch()
                for _ in range(group):
                    row += 1
                    batch.added[row] = (1, Message.published("", "q", properties, body), None)
                begun = time.perf_counter()
                database.write(batch, 0.0)
                sqlite.append(time.perf_counter() - begun)
            costs = median(plain) * 1e6, median(sqlite) * 1e6
            lines.append(f"| {group:,} | {costs[0]:,.0f} | {costs[1]:,.0f} | {costs[1] / group:.1f} |")
    finally:
        os.close(log)
        database.abandon()
        shutil.rmtree(folder)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[EMBEDDED, RABBITMQ])
    parser.add_argument("--scenario", type=int, choices=range(len(SCENARIOS)))
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="where both have their data")
    options = parser.parse_args(arguments)
    tempfile.tempdir = options.directory
    if (kind := filesystem_of(options.directory)) in IN_MEMORY:
        parser.error(f"{options.directory} is a {kind}, which has no disk; give another --directory")
    print(f"{options.rounds} rounds; data on {kind or 'an unknown file system'}\n")
    names = [options.only] if options.only else [EMBEDDED, RABBITMQ]
    scenarios = SCENARIOS if options.scenario is None else [SCENARIOS[options.scenario]]
    print("\n".join(disk_costs()), flush=True)
    runs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with running(names) as brokers:
        for _ in range(options.rounds):
            for scenario in scenarios:
                for name, (url, pid) in brokers.items():
                    run = measure(url, pid, scenario)
                    runs.setdefault((scenario.title, name), []).append(run)
                    print(f"{scenario.title}: {name}: {run[0]:,.0f}/s, {run[1]:.1f} us", file=sys.stderr, flush=True)
    print(f"\n{table(scenarios, names, runs)}")
    rate = median(rate for rate, _ in runs.get((TARGET.title, EMBEDDED), [(WANTED, 0.0)]))
    if (TARGET.title, EMBEDDED) in runs:
        verdict = "met" if rate >= WANTED else "not met"
        print(f"\n{TARGET.title}: {rate:,.0f}/s, wanted {WANTED:,}: {verdict}")
    return 0 if rate >= WANTED else 1


def table(
    scenarios: Sequence[Scenario], names: Sequence[str], runs: dict[tuple[str, str], list[tuple[float, float]]]
) -> str:
    """The medians, and the ratio of the rates where both were measured."""
    has_ratio = len(names) == 2
    lines = [f"| persistent, {SIZE} B | " + " | ".join(f"{n} msg/s | {n} CPU us" for n in names) + " |"]
    lines.append("| --- |" + " ---: | ---: |" * len(names))
    if has_ratio:
        lines = [lines[0] + " rate / RabbitMQ's |", lines[1] + " ---: |"]
    for scenario in scenarios:
        rates = {name: median(rate for rate, _ in runs[scenario.title, name]) for name in names}
        costs = {name: median(cost for _, cost in runs[scenario.title, name]) for name in names}
        cells = [f"{rates[name]:,.0f} | {costs[name]:.1f}" for name in names]
        if has_ratio:
            cells.append(f"{rates[EMBEDDED] / rates[RABBITMQ]:.2f}")
        lines.append(f"| {scenario.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
